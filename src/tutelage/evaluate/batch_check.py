"""Which prompts a model may answer together, tried on the model itself.

Prompts of a batch are padded on the left and the padding is masked. Attention heeds the mask; a state that runs over a
row may not, and then a reply depends on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

import torch

from tutelage.model.attention.isolation_check import equal_but_for_rounding
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.refusals import REFUSALS
from tutelage.types import TokenIds

Together = Literal["padded", "equal", "alone"]
"""What may share a batch: prompts of any lengths; only those of one length, which need no padding; none."""

LONG_TOKENS, SHORT_TOKENS = 24, 3
"""Of the prompts that are tried: the short one is mostly padding, so that a state that takes it in shows it."""
ID_STEP = 13
"""Ids of the trial, spread over the vocabulary."""

Answer = Callable[[Sequence[TokenIds]], Sequence[torch.Tensor]]
"""(prompts) -> what the model says of each, [steps, V]."""

SAID: dict[Together, str] = {
    "equal": "the model answers otherwise beside padding, so only prompts of equal length are answered together",
    "alone": "the model answers otherwise in a batch, so prompts are answered one at a time",
}


def together(answer: Answer, *, vocabulary: int, dtype: torch.dtype) -> Together:
    """Ask for a short prompt alone, beside a long one and beside one of its length.

    Args:
        answer: asks the model.
        vocabulary: how many ids it has.
        dtype: what it computes in, which tells how much rounding may change.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`), which says nothing of the model.
    """
    long_prompt, short_prompt, second_short_prompt = (
        ((first + torch.arange(tokens) * ID_STEP) % vocabulary).int().numpy()
        for first, tokens in ((1, LONG_TOKENS), (2, SHORT_TOKENS), (5, SHORT_TOKENS))
    )
    try:
        (reference,) = answer([short_prompt])
        if _alike(answer([long_prompt, short_prompt])[1], reference, dtype):
            return "padded"
    except REFUSALS as error:  # it may still take prompts that need no padding
        if is_out_of_memory(error):
            raise
    try:
        (reference,) = answer([short_prompt])
        return "equal" if _alike(answer([second_short_prompt, short_prompt])[1], reference, dtype) else "alone"
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return "alone"


def _alike(logits_SV: torch.Tensor, expected_SV: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether what is said step by step differs by rounding alone, up to where that leads to another token."""
    for logits_V, expected_V in zip(logits_SV, expected_SV, strict=True):
        if not equal_but_for_rounding(logits_V, expected_V, dtype):
            return False
        if logits_V.argmax() != expected_V.argmax():
            return True
    return True


def batches_of(prompts: Sequence[TokenIds], *, batch_prompts: int, batching: Together) -> list[list[int]]:
    """Places of prompts that are answered together, longest first, so that a batch holds like lengths.

    Args:
        prompts: all of them.
        batch_prompts: at most so many in a batch.
        batching: may share one.
    """
    longest_first = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    size = 1 if batching == "alone" else batch_prompts
    groups_ = [longest_first]
    if batching == "equal":
        groups_ = [list(group) for _, group in groupby(longest_first, key=lambda index: len(prompts[index]))]
    return [group[start : start + size] for group in groups_ for start in range(0, len(group), size)]
