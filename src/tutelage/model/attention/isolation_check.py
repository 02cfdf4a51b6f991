"""Whether a model really keeps the documents of a packed row apart, asked of the model itself.

Attention goes through `packed`, but some models also mix tokens elsewhere: convolutions, linear attention and
state-space layers run over the whole row, and some scale by the place in the row or turn by its longest document. No
list of architectures is trusted; the model is tried, on rows as long as the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.model.layers import decoder_of
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.model.refusals import REFUSALS

FIRST_TOKENS, SECOND_TOKENS = 8, 5
ID_STEP, OTHER_ID_STEP = 13, 29
"""Two sets of ids for the first document, spread over the vocabulary."""

EXPERT_SHARE = 1e-2
"""Where tokens are sorted to experts, other tokens in the first document change the shapes of products, and with them
their rounding; differences up to this share of the largest value are taken for that. Source: our choice, about the
rounding of bf16 over a few layers."""

WIDE_ROUNDING, NARROW_ROUNDING = 1e-4, 0.05
"""Largest difference, as a share of the norm, that is taken for rounding, in fp32 and in 16 bits. Source: our choice;
16-bit numbers have 3 significant digits, a few layers lose one of them, and what is left out by mistake is larger."""

NOISE_TIMES, MOST_NOISE = 2.0, 0.1
"""Where a model's own two ways to compute a row lie so far apart, as a share of the norm, the limit above is so many
times that: in bf16 the sums of some models grow so large that little of them is left (Gemma 3 of 270M: 0.064 between
two of transformers' kernels, 0.066 between a row and the same with as many tokens behind it). Above the second number
nothing is told from a mistake any more. Source: our choice, docs/log.md, "Gemma 3 in bf16"."""

WIDE_PLACE_ROUNDING, NARROW_PLACE_ROUNDING = 1e-5, 5e-3
"""The same between two places of one row, which one product computes. Source: our choice; on the CPU the numbers of
Llama, Gemma 3, gpt-oss, DeepSeek V3 and mixtures of experts were equal to the last bit, in both precisions."""

BEGINNING_TOKENS = 8
"""Of the beginning that two documents share in a trial."""


@dataclass(frozen=True, slots=True)
class MaxLengths:
    """How long a run's rows may become.

    Attributes:
        row_tokens: of all documents of a row together.
        document_tokens: of one of them.
    """

    row_tokens: int = FIRST_TOKENS + SECOND_TOKENS
    document_tokens: int = FIRST_TOKENS


SHORT = MaxLengths()
"""What is tried where no run is known."""


@torch.no_grad()  # not inference_mode: some models keep a state, and could not train with what that leaves
def documents_are_isolated(model: Any, longest: MaxLengths = SHORT, noise: float = 0.0) -> bool:
    """Whether a document of a row is computed alike whatever stands before it, wherever it stands, and as it is alone.

    The shapes are the same whatever the first one says, so the numbers must be the same to the last bit; only models
    with experts get some room, as the note above says. Alone it may differ by rounding; a model that counts positions
    over the whole row, whatever it is told, differs by more.

    Args:
        model: a causal language model after `use_packed_attention`; its training mode is left as it was.
        longest: how far apart places of a row are tried. Where memory runs out over that many tokens, half as many are
            tried: such rows cannot be trained on, either.
        noise: of the model (`rounding_noise`).

    Raises:
        RuntimeError: memory runs out over a few tokens.
    """
    trained, vocabulary_size = model.training, len(model.get_input_embeddings().weight)
    model.eval()
    try:
        baseline, perturbed = (_second_hidden(model, step, vocabulary_size) for step in (ID_STEP, OTHER_ID_STEP))
        alone = _second_hidden(model, None, vocabulary_size)
        first, last = _outer_hidden(model, longest, vocabulary_size)
    finally:
        model.train(trained)
    if not torch.equal(baseline, perturbed) and not (
        _has_experts(model) and float((baseline - perturbed).abs().max()) <= EXPERT_SHARE * float(baseline.abs().max())
    ):
        return False
    dtype = _dtype(model)
    wide = torch.finfo(dtype).bits >= 32
    return (
        _differ_at_most(WIDE_PLACE_ROUNDING if wide else NARROW_PLACE_ROUNDING, last, first)
        and equal_but_for_rounding(baseline, alone, dtype, noise)
        and equal_but_for_rounding(last, alone, dtype, noise)
    )


@torch.no_grad()
def prefixes_can_be_shared(model: Any, noise: float = 0.0) -> bool:
    """Whether two documents that continue one beginning (`types.PackedSequence.parents`) are computed as each is alone.

    Args:
        model: as for `documents_are_isolated`.
        noise: likewise.
    """
    trained, vocabulary_size = model.training, len(model.get_input_embeddings().weight)
    model.eval()
    try:
        beginning, *continuations = (
            [(1 + index * step) % vocabulary_size for index in range(tokens)]
            for step, tokens in (
                (ID_STEP, BEGINNING_TOKENS),
                (OTHER_ID_STEP, SECOND_TOKENS),
                (OTHER_ID_STEP + ID_STEP, SECOND_TOKENS),
            )
        )
        joined = _hidden(model, [beginning, *continuations], parents=(-1, 0, 0))
        alone = [_hidden(model, [beginning + continuation]) for continuation in continuations]
    finally:
        model.train(trained)
    dtype = _dtype(model)
    return all(
        equal_but_for_rounding(shared, expected[BEGINNING_TOKENS:], dtype, noise)
        for shared, expected in zip(joined[BEGINNING_TOKENS:].split(SECOND_TOKENS), alone, strict=True)
    )


def equal_but_for_rounding(
    actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, noise: float = 0.0
) -> bool:
    """Whether two results of the same numbers, computed in `dtype`, differ by rounding alone.

    Args:
        actual: one of them.
        expected: the other, whose norm the limit is a share of.
        dtype: what they were computed in.
        noise: of the model that they come from, in 16 bits (`rounding_noise`).
    """
    if torch.finfo(dtype).bits >= 32:
        return _differ_at_most(WIDE_ROUNDING, actual, expected)
    return _differ_at_most(max(NARROW_ROUNDING, NOISE_TIMES * noise), actual, expected)


@torch.no_grad()
def rounding_noise(model: Any, ids_1T: torch.Tensor) -> float:
    """How far the model's own hidden states of a row lie from those of the same tokens with as many behind them.

    Its products have other shapes then, and with them another order of sums; a few tokens more may leave it as it was.
    Two rows would tell as much, but some recurrent models keep a state of as many rows as they saw last.

    A share of the norm; 0 in fp32, which needs no such room, and where it does not tell: the model refuses, or differs
    by more than what is taken for rounding.

    Args:
        model: a causal language model that attends by itself, in evaluation mode.
        ids_1T: the row.
    """
    if torch.finfo(_dtype(model)).bits >= 32:
        return 0.0
    decoder, tokens = decoder_of(model), ids_1T.shape[1]
    try:
        alone, followed = (
            decoder(input_ids=ids, use_cache=False)[0][0, :tokens].float() for ids in (ids_1T, ids_1T.repeat(1, 2))
        )
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return 0.0
    norm = torch.linalg.vector_norm(alone)
    if alone.shape != followed.shape or not bool(torch.isfinite(norm)) or not norm:
        return 0.0
    noise = float(torch.linalg.vector_norm(followed - alone) / norm)
    return noise if noise <= MOST_NOISE else 0.0


def _differ_at_most(share: float, actual: torch.Tensor, expected: torch.Tensor) -> bool:
    if actual.shape != expected.shape or not bool(torch.isfinite(expected).all()):
        return False
    difference = torch.linalg.vector_norm(actual.float() - expected.float())
    return bool(difference <= share * torch.linalg.vector_norm(expected.float()))


def _outer_hidden(model: Any, longest: MaxLengths, vocabulary_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of one short document that stands both first and last in a long row, each [SECOND_TOKENS, width].

    It is the second document of the other trials. Between lie documents as long as the run's longest.
    """
    outer = _second_ids(vocabulary_size)
    tokens = max(0, longest.row_tokens - 2 * SECOND_TOKENS)
    while True:
        between = [(1 + index * ID_STEP) % vocabulary_size for index in range(tokens)]
        step = max(1, longest.document_tokens)
        documents = [outer, *(between[at : at + step] for at in range(0, tokens, step)), outer]
        try:
            hidden = _hidden(model, documents)
            return hidden[:SECOND_TOKENS], hidden[-SECOND_TOKENS:]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or tokens <= FIRST_TOKENS:
                raise
        release_memory()  # behind the handler, whose error holds on to what was computed
        tokens //= 2


def _second_ids(vocabulary_size: int) -> list[int]:
    return [(2 + index) % vocabulary_size for index in range(SECOND_TOKENS)]


def _second_hidden(model: Any, step: int | None, vocabulary_size: int) -> torch.Tensor:
    """Hidden states of the second document, fp32 [SECOND_TOKENS, width].

    The first one's ids go in `step`s; None leaves it out.
    """
    first = [] if step is None else [(1 + index * step) % vocabulary_size for index in range(FIRST_TOKENS)]
    second = _second_ids(vocabulary_size)
    return _hidden(model, [first, second] if first else [second])[len(first) :]


def _hidden(model: Any, segments: Sequence[Sequence[int]], *, parents: tuple[int, ...] = ()) -> torch.Tensor:
    """Hidden states of a row, fp32 [R, width]; a stretch with a parent goes on where that one ends."""
    device = next(model.parameters()).device
    first_positions = [len(segments[parent]) if parent >= 0 else 0 for parent in parents or (-1,) * len(segments)]
    position_ids = [
        index for first, ids in zip(first_positions, segments, strict=True) for index in range(first, first + len(ids))
    ]
    hidden: torch.Tensor = decoder_of(model)(
        input_ids=torch.tensor([[token_id for ids in segments for token_id in ids]], device=device),
        position_ids=torch.tensor([position_ids], device=device),
        document_tokens=tuple(map(len, segments)),
        **({"parents": parents} if parents else {}),
        use_cache=False,
    )[0]
    return hidden[0].float()


def _dtype(model: Any) -> torch.dtype:
    dtype: torch.dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return dtype


def _has_experts(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())
