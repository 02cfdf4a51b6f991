"""Attention inside documents as matrix products in bf16, for processors that multiply it in hardware.

Scores, probabilities and their gradients are fp32; what enters a product is rounded to bf16, and summed in fp32. The
kernels of flash attention compute so, too, but on a CPU one block of keys after the other in products of a few hundred
numbers. Here a block of tokens meets all of its keys in one product, whose scores stay in the processor's cache.
Measured in docs/log.md, "Attention as products in bf16".

Shape legend: H = query heads, G = key/value heads, N = H / G, R = tokens of a packed row, K = head width,
C = keys of a stretch, those above it first; Q = tokens of a block, M = N x Q, B = keys up to the end of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any

import torch

from tutelage.model.machine import cpu_multiplies_bf16

BLOCK_TOKENS = 128
"""Tokens whose scores are computed together, about: a longer stretch is cut into equal blocks, none of which meets keys
behind its own end. Source: docs/log.md, "Attention as products in bf16"."""

MOST_SCORES = 8 << 20
"""Scores at once, of all heads; where keys are so many that a block passes it, blocks get shorter."""

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.out


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of a row that follow each other, and where those lie that they attend to beside themselves."""

    own: slice
    above: tuple[slice, ...]

    def gathered(self, row_GRK: torch.Tensor) -> torch.Tensor:
        """[G, C, K]: of the keys or values of a row those that the stretch attends to."""
        if not self.above:
            return row_GRK[:, self.own]
        return torch.cat([row_GRK[:, place] for place in (*self.above, self.own)], dim=1)

    def add(self, part_GBK: torch.Tensor, row_GRK: torch.Tensor) -> None:
        """Add what belongs to the first B of the gathered places to the row, in place."""
        left = part_GBK.shape[1]
        for place in (*self.above, self.own):
            taken = min(left, place.stop - place.start)
            first = part_GBK.shape[1] - left
            row_GRK[:, place.start : place.start + taken] += part_GBK[:, first : first + taken]
            left -= taken

    def blocks(self, heads: int) -> list[_Block]:
        """The stretch in equal parts, short enough for their scores to stay in the cache."""
        tokens = self.own.stop - self.own.start
        above = sum(place.stop - place.start for place in self.above)
        most = max(1, min(BLOCK_TOKENS, MOST_SCORES // (heads * (above + tokens))))
        count = max(round(tokens / most), 1)
        edges = [tokens * number // count for number in range(count + 1)]
        return [
            _Block(slice(self.own.start + start, self.own.start + end), above + end) for start, end in pairwise(edges)
        ]


@dataclass(frozen=True, slots=True)
class _Block:
    """Tokens whose scores are computed together: their place in the row, and to how many keys the last one attends."""

    place: slice
    keys: int

    @property
    def tokens(self) -> int:
        return int(self.place.stop - self.place.start)

    def of(self, row_GNRK: torch.Tensor) -> torch.Tensor:
        """[G, M, K], M = N x Q: the block's own tokens, those of heads that share keys one behind the other."""
        return row_GNRK[:, :, self.place].flatten(1, 2)

    def put(self, part_GMK: torch.Tensor, row_GNRK: torch.Tensor) -> None:
        """The opposite of `of`."""
        row_GNRK[:, :, self.place] = part_GMK.unflatten(1, (-1, self.tokens))


@cache
def runs_here() -> bool:
    """Whether this processor multiplies bf16 in hardware, and torch's library knows how."""
    return cpu_multiplies_bf16() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _products_in_bf16() -> Iterator[None]:
    """Let products of fp32 tensors round what they multiply to bf16: torch has no other with bf16 in and fp32 out."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # set when torch is imported
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def multiplied_attention(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    stretches: Sequence[Stretch],
    scaling: float | None = None,
) -> torch.Tensor:
    """Causal attention of every stretch of a packed row to itself and those above it.

    Args:
        query_1HRK: and the two others, of one dtype, bf16.
        key_1GRK: keys.
        value_1GRK: values.
        stretches: cover the row.
        scaling: of scores; 1 / sqrt(K) where it is not given.

    Returns:
        [1, R, H, K] in the dtype of the queries.
    """
    return _Multiplied.apply(query_1HRK, key_1GRK, value_1GRK, stretches, scaling)  # type: ignore[no-any-return,no-untyped-call] # torch leaves it untyped


class _Multiplied(torch.autograd.Function):
    """Keeps nothing but its inputs for the backward pass, where scores are computed once more."""

    @staticmethod
    def forward(
        ctx: Any,
        query_1HRK: torch.Tensor,
        key_1GRK: torch.Tensor,
        value_1GRK: torch.Tensor,
        stretches: Sequence[Stretch],
        scaling: float | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK)
        ctx.stretches, ctx.scaling = stretches, scaling
        _, heads, tokens, _ = query_1HRK.shape
        out_1RHK = query_1HRK.new_empty(1, tokens, heads, value_1GRK.shape[3])
        room = _Room(query_1HRK, stretches, scaling)
        query_GNRK, out_GNRK = (_by_group(one, key_1GRK) for one in (query_1HRK, out_1RHK.transpose(1, 2)))
        with _products_in_bf16():
            for stretch in stretches:
                key_GCK, value_GCK = stretch.gathered(key_1GRK[0]).float(), stretch.gathered(value_1GRK[0])
                for block in stretch.blocks(heads):
                    weights_GMB = room.weights(block.of(query_GNRK), key_GCK[:, : block.keys], block)
                    block.put(torch.bmm(weights_GMB.to(value_GCK.dtype), value_GCK[:, : block.keys]), out_GNRK)
        return out_1RHK

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK = ctx.saved_tensors
        room = _Room(query_1HRK, ctx.stretches, ctx.scaling)
        by_query_1HRK = torch.empty_like(query_1HRK)
        by_key_GRK, by_value_GRK = (torch.zeros_like(one[0], dtype=torch.float32) for one in (key_1GRK, value_1GRK))
        query_GNRK, given_GNRK, by_query_GNRK = (
            _by_group(one, key_1GRK) for one in (query_1HRK, upstream[0].transpose(1, 2), by_query_1HRK)
        )
        dtype = query_1HRK.dtype
        with _products_in_bf16():
            for stretch in ctx.stretches:
                keys_GCK, values_GCK = stretch.gathered(key_1GRK[0]), stretch.gathered(value_1GRK[0])
                wide_keys_GCK, wide_values_GCK = keys_GCK.float(), values_GCK.float()
                for block in stretch.blocks(query_1HRK.shape[1]):
                    query_GMK, given_GMK = block.of(query_GNRK), block.of(given_GNRK)
                    weights_GMB = room.weights(query_GMK, wide_keys_GCK[:, : block.keys], block)
                    stretch.add(torch.bmm(weights_GMB.to(dtype).transpose(1, 2), given_GMK), by_value_GRK)
                    by_score_GMB = room.by_score(given_GMK, wide_values_GCK[:, : block.keys], weights_GMB).to(dtype)
                    block.put(torch.bmm(by_score_GMB, keys_GCK[:, : block.keys]), by_query_GNRK)
                    stretch.add(torch.bmm(by_score_GMB.transpose(1, 2), query_GMK), by_key_GRK)
        return by_query_1HRK, by_key_GRK[None].to(dtype), by_value_GRK[None].to(dtype), None, None


def _by_group(row_1HRK: torch.Tensor, key_1GRK: torch.Tensor) -> torch.Tensor:
    """[G, N, R, K]: the heads that share a key beside each other, as a view."""
    grouped_GNRK: torch.Tensor = row_1HRK[0].unflatten(0, (key_1GRK.shape[1], -1))
    return grouped_GNRK


class _Room:
    """Where one block after the other has its scores: fresh memory for each would cost more than filling it."""

    def __init__(self, query_1HRK: torch.Tensor, stretches: Sequence[Stretch], scaling: float | None) -> None:
        heads, width = query_1HRK.shape[1], query_1HRK.shape[3]
        blocks = [block for stretch in stretches for block in stretch.blocks(heads)]
        most = max(heads * block.tokens * block.keys for block in blocks)
        self._scores, self._weights = (query_1HRK.new_empty(most, dtype=torch.float32) for _ in range(2))
        longest = max(block.tokens for block in blocks)
        self._ahead_QQ = query_1HRK.new_full((longest, longest), float("-inf"), dtype=torch.float32).triu_(1)
        self._scaling = width**-0.5 if scaling is None else scaling

    def weights(self, query_GMK: torch.Tensor, key_GBK: torch.Tensor, block: _Block) -> torch.Tensor:
        """[G, M, B] in fp32: what each key counts for each query; valid until the next call."""
        shape = (*query_GMK.shape[:2], block.keys)
        scores_GMB = torch.bmm(query_GMK.float(), key_GBK.transpose(1, 2), out=_part(self._scores, shape))
        scores_GMB.mul_(self._scaling)
        own_GNQQ = scores_GMB.unflatten(1, (-1, block.tokens))[..., block.keys - block.tokens :]
        own_GNQQ += self._ahead_QQ[: block.tokens, : block.tokens]
        weights_GMB = _part(self._weights, shape)
        torch.softmax(scores_GMB, -1, out=weights_GMB)
        return weights_GMB

    def by_score(self, given_GMK: torch.Tensor, value_GBK: torch.Tensor, weights_GMB: torch.Tensor) -> torch.Tensor:
        """[G, M, B] in fp32: gradients of the unscaled scores from those of the output; valid until the next call."""
        room = _part(self._scores, weights_GMB.shape)
        by_weight_GMB = torch.bmm(given_GMK.float(), value_GBK.transpose(1, 2), out=room)
        # Written over its own input: the kernel reads a number before it writes there. Tests compare with autograd.
        SOFTMAX_BACKWARD(by_weight_GMB, weights_GMB, -1, torch.float32, grad_input=by_weight_GMB)
        return by_weight_GMB.mul_(self._scaling)


def _part(room: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The beginning of `room` in another shape."""
    return room[: prod(shape)].view(shape)
