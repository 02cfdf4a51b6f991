"""An end-of-turn token that a model never had is added, trained, and what its replies stop at."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import tiny_rows
from tutelage.builders.trained_model import open_trained_model
from tutelage.generate.replies import greedy_replies
from tutelage.model.attention.packed import use_generation_attention
from tutelage.train.run import Finished
from tutelage.types import Message

TOKEN = "<|end_of_turn|>"
LIKE_LIMA = (
    "model.method=full", f'model.add_tokens=["{TOKEN}"]', "render.template=lima", "data.max_rows=4", "train.epochs=30",
    "train.batch_size=4", "evaluate.before=false", "evaluate.task=[]", "evaluate.general=[]",
)  # fmt: skip


def test_a_new_end_of_turn_is_trained_and_ends_replies(train_tiny: Callable[..., Finished]) -> None:
    folder = train_tiny(*LIKE_LIMA).folder
    opened = open_trained_model(str(folder), tuned=True, base=True)
    tokenizer = opened.renderer.tokenizer
    token_id = tokenizer.fast.token_to_id(TOKEN)
    assert token_id in tokenizer.stop_ids
    row, start = (model.get_input_embeddings().weight[token_id].float() for model in (opened.tuned, opened.base))
    assert (row - start).abs().max() > 1e-3

    settings = json.loads((folder / "model" / "generation_config.json").read_text())
    assert token_id in torch.atleast_1d(torch.tensor(settings["eos_token_id"])).tolist()
    assert TOKEN in (folder / "model" / "chat_template.jinja").read_text()
    assert load_file(folder / "model" / "model.safetensors")

    asked = tiny_rows(0, 4)[0]["messages"][:-1]
    prompt = opened.renderer.serve([Message(turn["role"], turn["content"]) for turn in asked])
    assert prompt[-1] == token_id
    use_generation_attention(opened.tuned)
    (reply,) = greedy_replies(opened.tuned, tokenizer, [prompt], max_new_tokens=60, batch_prompts=1)
    assert reply.ended_by == "stop_token"
    assert TOKEN not in reply.text

    assert tokenizer.special_tokens[TOKEN] == token_id, "a user who spells it is not to end a turn"
    plain, saved = (
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        AutoTokenizer.from_pretrained(folder / "model"),
    )
    asked = {
        "input_ids": torch.tensor([prompt.tolist()]),
        "attention_mask": torch.ones(1, len(prompt), dtype=torch.long),
    }
    whole = plain.generate(**asked, do_sample=False, max_new_tokens=60, pad_token_id=0)
    output = whole[0, len(prompt) :].tolist()
    assert output[-1] == token_id
    assert len(output) < 60
    assert saved.decode(output, skip_special_tokens=True) == reply.text
    assert saved.decode(output, skip_special_tokens=False) == reply.text + TOKEN
    again = open_trained_model(str(folder), tuned=True, base=False).renderer.tokenizer
    assert again.sha256() == tokenizer.sha256()
