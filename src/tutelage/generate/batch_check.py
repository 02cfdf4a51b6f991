"""How a model may answer prompts together, tried on the model itself.

The engine's rows ask of a model that documents of a row stay apart and that all it keeps of a token are keys and
values. Where that is not so, prompts of a batch are padded on the left and the padding is masked. Attention heeds the
mask; a state that runs over a row may not, and then a reply depends on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch

from tutelage.errors import TutelageError
from tutelage.generate.beginnings import LEAST_PROMPTS, LEAST_TOKENS
from tutelage.generate.engine import Engine
from tutelage.generate.padded import padded_logits
from tutelage.generate.requests import Request
from tutelage.model.adapters.prompt_tuning import has_prompt
from tutelage.model.attention.isolation_check import equal_but_for_rounding, prefixes_can_be_shared, rounding_noise
from tutelage.model.attention.packed import use_generation_attention, use_packed_attention
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.output_head import HeadKind
from tutelage.model.refusals import REFUSALS
from tutelage.render import Tokenizer
from tutelage.types import TokenIds

Together = Literal["packed", "padded", "equal", "alone"]
"""What may be answered together: any prompts, by the engine; those of a padded batch; only those of one length, which
need no padding; none."""

LONG_TOKENS, SHORT_TOKENS = 24, 3
"""Of the prompts that are tried: the short one is mostly padding, so that a state that takes it in shows it."""

TRIED_STEPS = 3
"""Tokens that are generated in a trial: the first of the prompts, the others of a cache."""
ID_STEP = 13
"""Ids of the trial, spread over the vocabulary."""

Answer = Callable[[Sequence[TokenIds]], Sequence[torch.Tensor]]
"""(prompts) -> what the model says of each, [steps, V]."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How a model answers prompts together.

    Attributes:
        kind: which ones.
        head: who makes its logits, where the engine answers.
        shares_beginnings: whether the engine computes what prompts begin with once.
    """

    kind: Together
    head: HeadKind = "product"
    shares_beginnings: bool = False


SAID: dict[Together, str] = {
    "equal": "the model answers otherwise beside padding, so only prompts of equal length are answered together",
    "alone": "the model answers otherwise in a batch, so prompts are answered one at a time",
}


def batching_of(model: Any, tokenizer: Tokenizer) -> Batching:
    """The fastest way to answer together that leaves every reply as it is alone.

    Args:
        model: attends as served, here and afterwards.
        tokenizer: of it.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`), which says nothing of the model.
    """
    vocabulary, stops = len(model.get_input_embeddings().weight), sorted(tokenizer.stop_ids)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())

    def answer(prompts: Sequence[TokenIds]) -> list[torch.Tensor]:
        return padded_logits(model, prompts, stops, TRIED_STEPS)

    if (packed := _packed_batching(model, tokenizer, answer, vocabulary, dtype)) is not None:
        return packed
    return Batching(together(answer, vocabulary=vocabulary, dtype=dtype))


def _packed_batching(
    model: Any, tokenizer: Tokenizer, answer: Answer, vocabulary: int, dtype: torch.dtype
) -> Batching | None:
    """How the engine answers as the model does by itself; None where it does not."""
    if not model._can_set_attn_implementation():
        return None
    long_prompt, short_prompt, *begun_alike = (
        ((first + torch.arange(tokens) * ID_STEP) % vocabulary).int().numpy()
        for first, tokens in (
            (1, LONG_TOKENS),
            (2, SHORT_TOKENS),
            *((4, LEAST_TOKENS + 1 + own_tokens) for own_tokens in range(LEAST_PROMPTS)),
        )
    )
    for place, prompt in enumerate(begun_alike):
        prompt[LEAST_TOKENS:] = (prompt[LEAST_TOKENS:] + place) % vocabulary
    prompts = [long_prompt, short_prompt, *begun_alike]
    try:
        expected = {place: answer([prompts[place]])[0] for place in (0, 1, len(prompts) - 1)}
        noise = rounding_noise(model, torch.as_tensor(long_prompt)[None].to(model.device, torch.long))
        use_packed_attention(model)
        shares_beginnings = prefixes_can_be_shared(model, noise)
        if has_prompt(model) and not shares_beginnings:  # virtual tokens are a beginning of all prompts
            return None
        for head in ("product", "own"):
            actual = _engine_logits(model, tokenizer, prompts, head, shares_beginnings=shares_beginnings)
            if all(_alike(actual[place], logits_SV, dtype, noise) for place, logits_SV in expected.items()):
                return Batching("packed", head, shares_beginnings)
    except (*REFUSALS, TutelageError) as error:
        if is_out_of_memory(error):
            raise
    finally:
        use_generation_attention(model)
    return None


def _engine_logits(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], head: HeadKind, *, shares_beginnings: bool
) -> list[torch.Tensor]:
    """[steps, V] of each prompt."""
    seen: list[list[torch.Tensor]] = [[] for _ in prompts]
    stops = sorted(tokenizer.stop_ids)

    def watch(places: Sequence[int], logits_SV: torch.Tensor) -> None:
        for place, logits_V in zip(places, logits_SV, strict=True):
            seen[place].append(logits_V.clone())
        logits_SV[:, stops] = float("-inf")  # as in what it is compared with, where a reply goes on

    engine = Engine(
        model,
        tokenizer,
        head=head,
        active_replies=len(prompts),
        shares_beginnings=shares_beginnings,
        watch=watch,
    )
    for _ in engine.generate([Request(prompt, TRIED_STEPS) for prompt in prompts]):
        pass
    return [torch.stack(logits) for logits in seen]


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


def _alike(logits_SV: torch.Tensor, expected_SV: torch.Tensor, dtype: torch.dtype, noise: float = 0.0) -> bool:
    """Whether what is said step by step differs by rounding alone, up to where that leads to another token."""
    for logits_V, expected_V in zip(logits_SV, expected_SV, strict=True):
        if not equal_but_for_rounding(logits_V, expected_V, dtype, noise):
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
