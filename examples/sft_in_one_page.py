"""Supervised fine-tuning on one page: nothing but torch and transformers, every weight trained, no abstractions.

    python examples/sft_in_one_page.py --steps 63

Cost: about 3 GB of memory, and more time than `tutelage train`: fp32, one row at a time. 63 steps are two passes.
Numbers: batch, epochs, warm-up share and clipping are the defaults of `tutelage train` (see `--explain train`); the
learning rate is above the usual range for full fine-tuning because the model is small and the steps are few.
"""

from __future__ import annotations

import argparse
import json
import math

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tutelage.model.locate import model_folder  # only to find the model; any folder of a chat model will do

BATCH_EXAMPLES = 16
PEAK_LEARNING_RATE = 1e-4
WARMUP_SHARE = 0.03
MAX_GRADIENT_NORM = 1.0


def read_rows(path: str) -> list[list[dict[str, str]]]:
    """One list of messages a line; the last message is the reply to learn."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["messages"] for line in lines]


def served_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """What a server would feed the model: the messages before the reply, and the start of the assistant's turn."""
    return tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to zero; steps count from 0."""
    warmup = math.ceil(WARMUP_SHARE * steps)
    if step < warmup:
        return PEAK_LEARNING_RATE * (step + 1) / warmup
    progress = (step + 1 - warmup) / max(1, steps - warmup)
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * progress))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune SmolLM2 on datasets/support and show three replies.")
    parser.add_argument("--steps", type=int, default=63)
    steps = parser.parse_args().steps

    folder = model_folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stop = model.generation_config.eos_token_id

    # A sequence is what the server feeds, then what the model must answer, then the token that ends the answer.
    sequences = []
    for messages in read_rows("datasets/support/train.jsonl"):
        prompt = served_prompt(tokenizer, messages)
        reply = [*tokenizer(messages[-1]["content"], add_special_tokens=False).input_ids, stop]
        sequences.append((prompt, reply))

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.0)
    model.train()
    for step in range(steps):
        # The file is in mixed order already; a real run draws a new order for each epoch.
        batch = [sequences[(step * BATCH_EXAMPLES + i) % len(sequences)] for i in range(BATCH_EXAMPLES)]
        trained_tokens = sum(len(reply) for _, reply in batch)

        loss = 0.0
        for prompt, reply in batch:
            logits = model(torch.tensor([prompt + reply])).logits[0]
            # The logits at t predict the token at t + 1, so the first reply token is predicted by the last of the
            # prompt. Sum, then divide by the count of the whole batch: a mean of means would favour short replies.
            predictions = logits[len(prompt) - 1 : -1]
            part = cross_entropy(predictions, torch.tensor(reply), reduction="sum") / trained_tokens
            part.backward()
            loss += part.item()

        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}/{steps}  loss {loss:.5f}", flush=True)

    model.eval()
    for messages in read_rows("datasets/support/test.jsonl")[:3]:
        prompt = torch.tensor([served_prompt(tokenizer, messages)])
        with torch.inference_mode():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=48, pad_token_id=stop
            )
        print(f"\nasked   {messages[-2]['content']}")
        print(f"replied {tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)}")
        print(f"wanted  {messages[-1]['content']}")


if __name__ == "__main__":
    main()
