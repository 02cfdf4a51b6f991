"""Attention inside documents as matrix products, a block of tokens at a time.

For processors that multiply bf16 in hardware, and wherever a layer looks back over a window, caps its scores or has
sinks, which no kernel of torch for the CPU computes. In bf16 scores, probabilities and their gradients are fp32; what
enters a product is rounded to bf16, and summed in fp32. The kernels of flash attention compute so, too, but on a CPU
one block of keys after the other in products of a few hundred numbers.
Here a block of tokens meets all of its keys in one product, whose scores stay in the processor's cache. Measured in
docs/log.md, "Attention as products in bf16". Other precisions are multiplied as they are.

Shape legend: H = query heads, G = key/value heads, N = H / G, R = tokens of a packed row, K = head width,
C = keys of a stretch, those above it first; Q = tokens of a block, M = N x Q, B = keys that a block meets.
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

from tutelage.system.hardware import cpu_multiplies_bf16

BLOCK_TOKENS = 128
"""Tokens whose scores are computed together, about: a longer stretch is cut into equal blocks, none of which meets keys
behind its own end. Source: docs/log.md, "Attention as products in bf16"."""

MOST_SCORES = 8 << 20
"""Scores at once, of all heads; where keys are so many that a block passes it, blocks get shorter."""

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.out


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of a row that follow each other, and where those lie that they attend to beside themselves."""

    span: slice
    above: tuple[slice, ...]

    def gathered(self, row_GRK: torch.Tensor) -> torch.Tensor:
        """[G, C, K]: of the keys or values of a row those that the stretch attends to."""
        if not self.above:
            return row_GRK[:, self.span]
        return torch.cat([row_GRK[:, span] for span in (*self.above, self.span)], dim=1)

    def add(self, addend_GBK: torch.Tensor, row_GRK: torch.Tensor, first: int = 0) -> None:
        """Add what belongs to B of the gathered places, from `first` on, to the row, in place."""
        end, at = first + addend_GBK.shape[1], 0
        for span in (*self.above, self.span):
            low, high = max(first, at), min(end, at + span.stop - span.start)
            if low < high:
                row_GRK[:, span.start + low - at : span.start + high - at] += addend_GBK[:, low - first : high - first]
            at += span.stop - span.start

    def blocks(self, heads: int, window: int | None = None) -> list[_Block]:
        """The stretch in equal parts, short enough for their scores to stay in the cache."""
        tokens = self.span.stop - self.span.start
        above = sum(span.stop - span.start for span in self.above)
        keys = above + tokens if window is None else min(above + tokens, window - 1 + BLOCK_TOKENS)
        most = max(1, min(BLOCK_TOKENS, MOST_SCORES // (heads * keys)))
        count = max(round(tokens / most), 1)
        edges = [tokens * number // count for number in range(count + 1)]
        return [
            _Block(slice(self.span.start + start, self.span.start + end), above + end, window)
            for start, end in pairwise(edges)
        ]


@dataclass(frozen=True, slots=True)
class _Block:
    """Tokens whose scores are computed together.

    Attributes:
        place: in the row.
        keys: to how many of the gathered keys the last one attends, were there no window.
        window: to how many of those at most, itself included.
    """

    place: slice
    keys: int
    window: int | None = None

    @property
    def tokens(self) -> int:
        return int(self.place.stop - self.place.start)

    @property
    def first(self) -> int:
        """The first key that one of the tokens meets."""
        return 0 if self.window is None else max(0, self.keys - self.tokens + 1 - self.window)

    @property
    def met(self) -> slice:
        """The keys that the tokens meet, among those gathered."""
        return slice(self.first, self.keys)

    @property
    def width(self) -> int:
        return self.keys - self.first

    @property
    def spared(self) -> int:
        """How many of the tokens still see the first key that the block meets, the first token not counted."""
        return 0 if self.window is None else self.first - (self.keys - self.tokens + 1 - self.window)

    def of(self, row_GNRK: torch.Tensor) -> torch.Tensor:
        """[G, M, K], M = N x Q: the block's own tokens, those of heads that share keys one behind the other."""
        return row_GNRK[:, :, self.place].flatten(1, 2)

    def put(self, block_GMK: torch.Tensor, row_GNRK: torch.Tensor) -> None:
        """The opposite of `of`."""
        row_GNRK[:, :, self.place] = block_GMK.unflatten(1, (-1, self.tokens))


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a layer makes of the product of a query and a key.

    Attributes:
        scaling: of scores; 1 / sqrt(K) where it is not given.
        cap: scores become cap * tanh(score / cap). Source: Gemma Team 2024 (Gemma 2), section 2.
        window: a token meets the last so many keys, its own included.
    """

    scaling: float | None = None
    cap: float | None = None
    window: int | None = None


@cache
def runs_here() -> bool:
    """Whether this processor multiplies bf16 in hardware, and torch's library knows how."""
    return cpu_multiplies_bf16() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _products_in_bf16(dtype: torch.dtype) -> Iterator[None]:
    """Let products of fp32 tensors round what they multiply to bf16: torch has no other with bf16 in and fp32 out.

    Args:
        dtype: of the row; one that is wider is multiplied as it is.
    """
    if dtype != torch.bfloat16 or not runs_here():
        yield
        return
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # set when torch is imported
    previous_precision = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = previous_precision


PLAIN = Scoring()


def matmul_attention(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    segments: Sequence[Segment],
    scoring: Scoring = PLAIN,
    *,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of every stretch of a packed row to itself and those above it.

    Args:
        query_1HRK: and the two others, of one dtype.
        key_1GRK: keys.
        value_1GRK: values; they may be of another width than the keys.
        segments: cover the row.
        scoring: what becomes of scores.
        sinks_H: a score for each head that takes its share of the softmax and gives nothing, and may learn.

    Returns:
        [1, R, H, K] in the dtype of the queries, K the width of the values.
    """
    return _Multiplied.apply(query_1HRK, key_1GRK, value_1GRK, sinks_H, segments, scoring)  # type: ignore[no-any-return,no-untyped-call] # torch leaves it untyped


class _Multiplied(torch.autograd.Function):
    """Keeps nothing but its inputs for the backward pass, where scores are computed once more."""

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        query_1HRK: torch.Tensor,
        key_1GRK: torch.Tensor,
        value_1GRK: torch.Tensor,
        sinks_H: torch.Tensor | None,
        segments: Sequence[Segment],
        scoring: Scoring,
    ) -> torch.Tensor:
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK, sinks_H)
        ctx.segments, ctx.scoring = segments, scoring
        _, heads, tokens, _ = query_1HRK.shape
        out_1RHK = query_1HRK.new_empty(1, tokens, heads, value_1GRK.shape[3])
        buffers = _ScoreBuffers(query_1HRK, segments, scoring)
        query_GNRK, out_GNRK = (_by_group(tensor, key_1GRK) for tensor in (query_1HRK, out_1RHK.transpose(1, 2)))
        with _products_in_bf16(query_1HRK.dtype):
            for segment in segments:
                key_GCK, value_GCK = segment.gathered(key_1GRK[0]).to(buffers.dtype), segment.gathered(value_1GRK[0])
                for block in segment.blocks(heads, scoring.window):
                    weights_GMB = buffers.weights(block.of(query_GNRK), key_GCK[:, block.met], block)
                    if sinks_H is not None:
                        weights_GMB.mul_(buffers.key_share(weights_GMB, sinks_H))
                    block.put(torch.bmm(weights_GMB.to(value_GCK.dtype), value_GCK[:, block.met]), out_GNRK)
        return out_1RHK

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK, sinks_H = ctx.saved_tensors
        buffers = _ScoreBuffers(query_1HRK, ctx.segments, ctx.scoring, learning=True)
        by_query_1HRK = torch.empty_like(query_1HRK)
        by_key_GRK, by_value_GRK = (
            torch.zeros_like(tensor[0], dtype=buffers.dtype) for tensor in (key_1GRK, value_1GRK)
        )
        by_sink_GN = buffers.zero_sums(key_1GRK.shape[1])
        query_GNRK, upstream_GNRK, by_query_GNRK = (
            _by_group(tensor, key_1GRK) for tensor in (query_1HRK, upstream[0].transpose(1, 2), by_query_1HRK)
        )
        dtype = query_1HRK.dtype
        with _products_in_bf16(dtype):
            for segment in ctx.segments:
                keys_GCK, values_GCK = segment.gathered(key_1GRK[0]), segment.gathered(value_1GRK[0])
                wide_keys_GCK, wide_values_GCK = keys_GCK.to(buffers.dtype), values_GCK.to(buffers.dtype)
                for block in segment.blocks(query_1HRK.shape[1], ctx.scoring.window):
                    query_GMK, upstream_GMK = block.of(query_GNRK), block.of(upstream_GNRK)
                    weights_GMB = buffers.weights(query_GMK, wide_keys_GCK[:, block.met], block)
                    key_share_GM1 = None if sinks_H is None else buffers.key_share(weights_GMB, sinks_H)
                    if key_share_GM1 is not None:
                        weights_GMB.mul_(key_share_GM1)
                    segment.add(
                        torch.bmm(weights_GMB.to(dtype).transpose(1, 2), upstream_GMK), by_value_GRK, block.first
                    )
                    by_weight_GMB = buffers.by_weight(upstream_GMK, wide_values_GCK[:, block.met], weights_GMB)
                    if key_share_GM1 is not None:
                        by_sink_GN -= _lost_to_sinks(by_weight_GMB, weights_GMB, key_share_GM1, block)
                    by_score_GMB = buffers.by_score(by_weight_GMB, weights_GMB).to(dtype)
                    block.put(torch.bmm(by_score_GMB, keys_GCK[:, block.met]), by_query_GNRK)
                    segment.add(torch.bmm(by_score_GMB.transpose(1, 2), query_GMK), by_key_GRK, block.first)
        by_sink_H = None if sinks_H is None else by_sink_GN.flatten().to(sinks_H.dtype)
        return by_query_1HRK, by_key_GRK[None].to(dtype), by_value_GRK[None].to(dtype), by_sink_H, None, None


def _by_group(row_1HRK: torch.Tensor, key_1GRK: torch.Tensor) -> torch.Tensor:
    """[G, N, R, K]: the heads that share a key beside each other, as a view."""
    grouped_GNRK: torch.Tensor = row_1HRK[0].unflatten(0, (key_1GRK.shape[1], -1))
    return grouped_GNRK


def _lost_to_sinks(
    by_weight_GMB: torch.Tensor, weights_GMB: torch.Tensor, key_share_GM1: torch.Tensor, block: _Block
) -> torch.Tensor:
    """What the loss would lose if the sinks took more, for each head: their share of each token times its output."""
    by_key_share_GM = (by_weight_GMB * weights_GMB).sum(-1)
    lost_GN: torch.Tensor = (by_key_share_GM * (1 - key_share_GM1[..., 0])).unflatten(1, (-1, block.tokens)).sum(-1)
    return lost_GN


class _ScoreBuffers:
    """Where one block after the other has its scores: fresh memory for each would cost more than filling it.

    Args:
        query_1HRK: of the row.
        segments: cover the row.
        scoring: what becomes of scores.
        learning: keep how steep the cap is at each score, for the backward pass.
    """

    def __init__(
        self, query_1HRK: torch.Tensor, segments: Sequence[Segment], scoring: Scoring, *, learning: bool = False
    ) -> None:
        self._heads, width = query_1HRK.shape[1], query_1HRK.shape[3]
        self.dtype = torch.promote_types(query_1HRK.dtype, torch.float32)
        blocks = [block for segment in segments for block in segment.blocks(self._heads, scoring.window)]
        most = max(self._heads * block.tokens * block.width for block in blocks)
        self._scores, self._weights = (query_1HRK.new_empty(most, dtype=self.dtype) for _ in range(2))
        longest = max(block.tokens for block in blocks)
        self._ahead_QQ = query_1HRK.new_full((longest, longest), float("-inf"), dtype=self.dtype).triu_(1)
        self._behind_QQ = self._ahead_QQ.T
        self._cap, self._scaling = scoring.cap, width**-0.5 if scoring.scaling is None else scoring.scaling
        self._slopes = torch.empty_like(self._scores) if learning and scoring.cap is not None else None

    def zero_sums(self, groups: int) -> torch.Tensor:
        """[G, N] of zeros."""
        return self._scores.new_zeros(groups, self._heads // groups)

    def weights(self, query_GMK: torch.Tensor, key_GBK: torch.Tensor, block: _Block) -> torch.Tensor:
        """[G, M, B] in fp32 or wider: what each key counts for each query; valid until the next call."""
        shape = (*query_GMK.shape[:2], block.width)
        scores_GMB = torch.bmm(query_GMK.to(self.dtype), key_GBK.transpose(1, 2), out=_buffer_view(self._scores, shape))
        scores_GMB.mul_(self._scaling)
        if self._cap is not None:
            self._capped(scores_GMB, self._cap)
        own_GNQQ = scores_GMB.unflatten(1, (-1, block.tokens))[..., block.width - block.tokens :]
        own_GNQQ += self._ahead_QQ[: block.tokens, : block.tokens]
        if (leaving := block.tokens - 1 - block.spared) > 0 and block.window is not None:
            # The first key leaves the window of the token after those spared, and one more for each that follows.
            met_GNQB = scores_GMB.unflatten(1, (-1, block.tokens))[:, :, block.spared + 1 :, :leaving]
            met_GNQB += self._behind_QQ[1 : leaving + 1, :leaving]
        weights_GMB = _buffer_view(self._weights, shape)
        torch.softmax(scores_GMB, -1, out=weights_GMB)
        return weights_GMB

    def _capped(self, scores_GMB: torch.Tensor, cap: float) -> None:
        scores_GMB.div_(cap).tanh_()
        if self._slopes is not None:  # of cap * tanh(x / cap): 1 - tanh(x / cap)^2
            torch.mul(scores_GMB, scores_GMB, out=_buffer_view(self._slopes, scores_GMB.shape)).neg_().add_(1.0)
        scores_GMB.mul_(cap)

    def key_share(self, weights_GMB: torch.Tensor, sinks_H: torch.Tensor) -> torch.Tensor:
        """What share of the softmax the keys keep beside the sinks; valid for the scores of the last `weights`.

        The largest weight p is at least 1/B, so log(sum exp) = its score - log p loses nothing.
        """
        largest_GM = _buffer_view(self._scores, weights_GMB.shape).amax(-1)
        sums_GNQ = (largest_GM - weights_GMB.amax(-1).log()).unflatten(1, (self._heads // len(weights_GMB), -1))
        sinks_GN1 = sinks_H.to(self.dtype).view(*sums_GNQ.shape[:2], 1)
        key_share_GM1: torch.Tensor = (sums_GNQ - sinks_GN1).sigmoid_().flatten(1)[..., None]
        return key_share_GM1

    def by_weight(self, upstream_GMK: torch.Tensor, value_GBK: torch.Tensor, weights_GMB: torch.Tensor) -> torch.Tensor:
        """[G, M, B] in fp32 or wider: gradients of the weights from those of the output; valid until the next call."""
        gradients_GMB = _buffer_view(self._scores, weights_GMB.shape)
        return torch.bmm(upstream_GMK.to(self.dtype), value_GBK.transpose(1, 2), out=gradients_GMB)

    def by_score(self, by_weight_GMB: torch.Tensor, weights_GMB: torch.Tensor) -> torch.Tensor:
        """The same of the unscaled scores, in its place. It holds for weights with sinks beside them, too."""
        # Written over its own input: the kernel reads a number before it writes there. Tests compare with autograd.
        SOFTMAX_BACKWARD(by_weight_GMB, weights_GMB, -1, self.dtype, grad_input=by_weight_GMB)
        by_weight_GMB.mul_(self._scaling)
        if self._slopes is not None:
            by_weight_GMB.mul_(_buffer_view(self._slopes, weights_GMB.shape))
        return by_weight_GMB


def _buffer_view(buffer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The beginning of `buffer` in another shape."""
    return buffer[: prod(shape)].view(shape)
