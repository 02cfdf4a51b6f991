"""One way to generate, measured once in this process; prints one JSON line.

    python -m benchmarks.generate.contestant engine JOB.json

The clock leaves out loading, and a few prompts that are answered before it starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from tutelage.generate.batch_check import batches_of
from tutelage.generate.engine import Engine
from tutelage.generate.padded import padded_replies
from tutelage.generate.requests import Request
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.precision import DTYPES
from tutelage.render import Tokenizer
from tutelage.types import TokenIds

WARM_PROMPTS, WARM_TOKENS = 4, 4

Answer = Callable[[list[TokenIds], int], list[list[int]]]
"""(prompts, new tokens at most) -> ids of each reply, without a stop token."""


def by_engine(model: Any, tokenizer: Tokenizer, batch: int) -> Answer:
    """As evaluation asks."""

    def answer(prompts: list[TokenIds], max_new_tokens: int) -> list[list[int]]:
        engine = Engine(model, tokenizer, active_replies=batch)
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        replies: list[list[int]] = [[] for _ in prompts]
        for completion in engine.generate([Request(prompts[place], max_new_tokens) for place in order]):
            replies[order[completion.request]] = list(completion.ids)
        return replies

    return answer


def by_padded(model: Any, tokenizer: Tokenizer, batch: int) -> Answer:
    """As evaluation asked before there was an engine, and asks models that the engine does not fit."""

    def answer(prompts: list[TokenIds], max_new_tokens: int) -> list[list[int]]:
        use_generation_attention(model)
        replies: list[list[int]] = [[] for _ in prompts]
        for places in batches_of(prompts, batch_prompts=batch, batching="padded"):
            with torch.inference_mode():
                batch_replies = padded_replies(model, tokenizer, [prompts[place] for place in places], max_new_tokens)
            for place, reply in zip(places, batch_replies, strict=True):
                replies[place] = reply
        return replies

    return answer


def by_continuous(model: Any, tokenizer: Tokenizer, batch: int) -> Answer:
    """Transformers' continuous batching, with its own sizes but for the number of requests at once."""
    from transformers import ContinuousBatchingConfig

    stops = sorted(tokenizer.stop_ids)

    def answer(prompts: list[TokenIds], max_new_tokens: int) -> list[list[int]]:
        model.set_attn_implementation("sdpa")
        outputs = model.generate_batch(
            inputs=[prompt.tolist() for prompt in prompts],
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=stops[0]
            ),
            continuous_batching_config=ContinuousBatchingConfig(max_requests_per_batch=batch),
            progress_bar=False,
        )
        if failures := {output.error for output in outputs.values()} - {None}:  # it logs them and goes on
            raise RuntimeError(f"continuous batching failed: {failures}")
        by_prompt = {tuple(output.prompt_ids): output.generated_tokens for output in outputs.values()}
        return [
            [token for token in by_prompt[tuple(prompt.tolist())] if token not in tokenizer.stop_ids]
            for prompt in prompts
        ]

    return answer


CONTESTANTS = {"engine": by_engine, "padded": by_padded, "continuous": by_continuous}
LLAMA_CPP = "llama_cpp"


def answer_of(name: str, job: dict[str, Any], scratch: Path) -> Answer:
    """What answers prompts, ready to."""
    if name == LLAMA_CPP:
        from benchmarks.generate.llama_cpp import server_answer

        return server_answer(scratch, job)
    folder = Path(job["model"])
    tokenizer = Tokenizer.load(folder)
    if job["lengths"] == "equal":  # no reply stops: the last id of the vocabulary is one that nobody writes
        tokenizer = replace(tokenizer, stop_ids=frozenset({tokenizer.vocabulary_size - 1}))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[job["precision"]]).eval()
    return CONTESTANTS[name](model, tokenizer, job["batch"])


def main(name: str, job_file: Path) -> None:
    """Load, answer, measure."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    prompts = [np.asarray(prompt, dtype=np.int32) for prompt in job["prompts"]]
    answer = answer_of(name, job, job_file.parent)
    answer(prompts[:WARM_PROMPTS], WARM_TOKENS)
    before = getrusage(RUSAGE_SELF)
    started = time.perf_counter()
    replies = answer(prompts, job["max_new_tokens"])
    seconds = time.perf_counter() - started
    after = getrusage(RUSAGE_SELF)
    result = {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "tokens": sum(len(reply) for reply in replies),
        "peak_bytes": after.ru_maxrss * 1024,
        "replies": replies,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
