"""Greedy replies to served prompts, as a server would give them: same ids in, the stop tokens end a reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from tutelage.model.prompt import feed_generation
from tutelage.model.ranks import ALONE, Ranks
from tutelage.render import Tokenizer
from tutelage.types import TokenIds


class Streamer(Protocol):
    """Receives ids as they are generated, the prompt's first: the interface that transformers asks for."""

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids."""

    def end(self) -> None:
        """The reply is complete."""


@torch.inference_mode()
def greedy_replies(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    done: Callable[[int], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> list[str]:
    """One reply for each prompt, in order, without its stop token; at most `max_new_tokens` long.

    Args:
        model: attends as served (`model.attention.attend_as_served`).
        tokenizer: its stop tokens end a reply.
        prompts: ids of served prompts.
        max_new_tokens: where a reply that never stops is cut.
        batch_prompts: prompts generated together, longest first so that a batch holds like lengths.
        done: called with the number of replies finished since the last call.
        ranks: processes that share the batches of prompts, each with the whole model; all get all replies.
    """
    model.eval()
    replies: dict[int, str] = {}
    longest_first = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    for start in range(ranks.rank * batch_prompts, len(longest_first), ranks.size * batch_prompts):
        chosen = longest_first[start : start + batch_prompts]
        ids = _generate(model, tokenizer, [prompts[index] for index in chosen], max_new_tokens, None)
        for index, reply in zip(chosen, ids, strict=True):
            replies[index] = tokenizer.decode(reply)
        done(len(chosen))
    of_all = {index: reply for of_one in ranks.gather(replies) for index, reply in of_one.items()}
    return [of_all[index] for index in range(len(prompts))]


@torch.inference_mode()
def streamed_reply(
    model: Any, tokenizer: Tokenizer, prompt: TokenIds, *, max_new_tokens: int, streamer: Streamer
) -> str:
    """One greedy reply, its ids handed to `streamer` as they come."""
    model.eval()
    return tokenizer.decode(_generate(model, tokenizer, [prompt], max_new_tokens, streamer)[0])


def _generate(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], max_new_tokens: int, streamer: Streamer | None
) -> list[list[int]]:
    from peft import PeftModel
    from transformers import GenerationConfig

    stops = sorted(tokenizer.stop_ids)
    width = max(len(one) for one in prompts)
    ids = torch.full((len(prompts), width), stops[0], dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, so that every reply starts at the same column
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=stops[0], use_cache=True
    )
    # PEFT's own generate computes logits for the whole prompt; the model it wraps, which holds the adapter's layers
    # too, computes them for the last position only.
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    given = feed_generation(model, ids, mask)
    output = inner.generate(
        **given,
        generation_config=settings,
        streamer=streamer,
        synced_gpus=False,  # each process may generate something else: its model is whole here
    )
    start = width if "input_ids" in given else 0  # from embeddings, generate returns new ids only
    return [_until_stop(one[start:].tolist(), tokenizer.stop_ids) for one in output]


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stop_ids:
            return ids[:position]
    return ids
