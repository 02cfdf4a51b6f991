"""Replies by transformers' own `generate`, prompts padded on the left: for models that the engine does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from tutelage.model.adapters.prompt_tuning import generation_inputs
from tutelage.render import Tokenizer
from tutelage.types import TokenIds


class Streamer(Protocol):
    """Receives ids as they are generated, the prompt's first: the interface that transformers asks for."""

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids."""

    def end(self) -> None:
        """The reply is complete."""


def padded_replies(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], max_new_tokens: int, streamer: Streamer | None = None
) -> list[list[int]]:
    """Greedy ids of a reply to each prompt, in one batch, without the stop token."""
    stops = sorted(tokenizer.stop_ids)
    output, start = _generated(model, prompts, stops, max_new_tokens=max_new_tokens, streamer=streamer)
    return [_until_stop(sequence[start:].tolist(), tokenizer.stop_ids) for sequence in output.sequences]


def padded_logits(model: Any, prompts: Sequence[TokenIds], stops: list[int], steps: int) -> list[torch.Tensor]:
    """Of each prompt the logits of as many tokens as `steps`, stop tokens passed over, [steps, V] in fp32."""
    output, _ = _generated(model, prompts, stops, max_new_tokens=steps, min_new_tokens=steps, output_logits=True)
    return list(torch.stack(output.logits, dim=1).float())


def _generated(
    model: Any, prompts: Sequence[TokenIds], stops: list[int], *, streamer: Streamer | None = None, **settings: Any
) -> tuple[Any, int]:
    """What transformers generates, and where replies begin in its `sequences`."""
    from peft import PeftModel
    from transformers import GenerationConfig

    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), stops[0], dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, so that every reply starts at the same column
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
        use_cache=True,
        return_dict_in_generate=True,
        **settings,
    )
    # PEFT's own generate computes logits for the whole prompt; the model it wraps, which holds the adapter's layers
    # too, computes them for the last position only.
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    model_inputs = generation_inputs(model, ids, mask)
    output = inner.generate(
        **model_inputs,
        generation_config=generation_config,
        streamer=streamer,
        synced_gpus=False,  # each process may generate something else: its model is whole here
    )
    return output, width if "input_ids" in model_inputs else 0  # from embeddings, generate returns new ids only


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stop_ids:
            return ids[:position]
    return ids
