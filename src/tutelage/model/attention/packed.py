"""Attention that never crosses a document boundary, through transformers' attention interface.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width, V = that of values,
Q = tokens that attend in one call, C = tokens they attend to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from tutelage.model.attention import cpu_bf16 as attention_products
from tutelage.model.attention import cuda_varlen
from tutelage.model.attention.autograd import attention_by_autograd, attention_in_blocks
from tutelage.model.attention.cpu_bf16 import Scoring, matmul_attention
from tutelage.model.attention.layout import FULL, Layout, Reach, UnknownAttentionError, reach_mask

NAME = "tutelage_documents"

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
"""What `scaled_dot_product_attention` itself calls on a CPU, with the logarithms of its sums, which backward wants."""

WIDEN_BELOW_TOKENS = 1024
"""Where attention in bf16 goes to torch's kernel, a row of documents shorter than this is computed in fp32: the bf16
backward pass has a cost for each call that fp32 has not. Source: docs/log.md, "Attention over short documents"."""

NOT_ATTENTION = ("position_ids", "cache_position")
"""Tensors that models hand on to attention, and that change nothing of it."""


def document_attention(
    _module: torch.nn.Module,
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRV: torch.Tensor,
    attention_mask: Reach | torch.Tensor | None,
    *,
    document_tokens: tuple[int, ...] | None = None,
    parents: tuple[int, ...] = (),
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    is_causal: bool | None = None,
    emulated_device: str | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document of a packed row.

    One kernel call for each document costs the sum of their squared lengths, where a block mask over the whole row
    would cost the square of the sum. A document with a parent also attends to the tokens of its parents; see
    `types.PackedSequence`. A model that hands no documents on to its attention has one in a row, which the trial of
    `model.attention.isolation_check` sees to. `emulated_device` is the kind of device that the planner emulates.

    Returns:
        [1, R, H, V] and None (no attention weights).

    Raises:
        UnknownAttentionError: the model asks for something this function does not compute.
    """
    tensors = [
        name for name, argument in others.items() if isinstance(argument, torch.Tensor) and name not in NOT_ATTENTION
    ]
    if tensors or is_causal is False:
        raise UnknownAttentionError(
            f"attention with {', '.join(tensors) or 'tokens that look ahead'} is not known here"
        )
    tokens = query_1HRK.shape[2]
    if query_1HRK.shape[0] != 1 or key_1GRK.shape[2] != tokens:
        raise UnknownAttentionError("document attention takes one packed row, whose tokens attend to each other")
    layout = Layout(document_tokens or (tokens,), parents)
    # The mask alone says how far a layer reaches, as in transformers' own; `sliding_window` is for kernels without one.
    reach = (attention_mask if isinstance(attention_mask, Reach) else FULL).inside(layout.longest)
    if reach.chunk is not None:
        layout = layout.in_chunks(reach.chunk)
        reach = Reach(reach.window).inside(layout.longest)
    inputs = _AttentionInputs(
        query_1HRK, key_1GRK, value_1GRV, layout, Scoring(scaling, softcap, reach.window), emulated_device
    )
    bias_1HRR = _bias(attention_mask, position_bias)
    if bias_1HRR is None and s_aux is None and inputs.scoring == Scoring(scaling):
        return _plain(inputs, dropout), None
    return _scored(inputs, dropout, s_aux, bias_1HRR), None


@dataclass(frozen=True, slots=True)
class _AttentionInputs:
    """A row as a layer hands it over."""

    query_1HRK: torch.Tensor
    key_1GRK: torch.Tensor
    value_1GRV: torch.Tensor
    layout: Layout
    scoring: Scoring
    emulated_device: str | None

    @property
    def row(self) -> _Row:
        """Queries, keys and values."""
        return self.query_1HRK, self.key_1GRK, self.value_1GRV

    def goes_to_flash(self, dropout: float) -> bool:
        """Whether one call of flash attention computes it, on CUDA."""
        simple = self.scoring.cap is None and not self.layout.parents
        return simple and cuda_varlen.runs_here(self.query_1HRK, self.value_1GRV, dropout=dropout)


def _plain(inputs: _AttentionInputs, dropout: float) -> torch.Tensor:
    """Attention as PyTorch's kernels compute it, [1, R, H, V]."""
    query_1HRK, key_1GRK, value_1GRV = inputs.row
    layout, scaling = inputs.layout, inputs.scoring.scaling
    if inputs.goes_to_flash(dropout):
        return _flash_on_cuda(inputs)
    assert not layout.parents or dropout == 0.0, "documents that share a beginning would share its dropout"
    on_cpu = query_1HRK.device.type == "cpu" and dropout == 0.0
    if (
        on_cpu
        and query_1HRK.dtype == torch.bfloat16
        and inputs.emulated_device in {None, "cpu"}
        and attention_products.runs_here()
    ):
        segments = layout.segments()
        return matmul_attention(query_1HRK, key_1GRK, value_1GRV, segments, inputs.scoring)
    row, scaling = _of_one_width(*inputs.row, scaling)
    if on_cpu:
        widen = layout.longest < WIDEN_BELOW_TOKENS and torch.finfo(query_1HRK.dtype).bits < 32
        out_1RHK: torch.Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            *row, _pieces(layout), scaling, widen
        )
    else:
        out_1RHK = attention_by_autograd(*row, layout, dropout=dropout, scaling=scaling)
    return _as_wide(out_1RHK, value_1GRV)


def _scored(
    inputs: _AttentionInputs, dropout: float, sinks_H: torch.Tensor | None, bias_1HRR: torch.Tensor | None
) -> torch.Tensor:
    """Attention with a window, a cap, sinks or a bias, [1, R, H, V]; scores exist for a block of tokens at a time."""
    if sinks_H is None and bias_1HRR is None and inputs.goes_to_flash(dropout):
        return _flash_on_cuda(inputs)
    segments, row = inputs.layout.segments(inputs.scoring.window), inputs.row
    if dropout > 0.0 or bias_1HRR is not None:
        return attention_in_blocks(
            *row, segments, inputs.scoring, sinks_H=sinks_H, bias_1HRR=bias_1HRR, dropout=dropout
        )
    dtype = inputs.query_1HRK.dtype
    if inputs.query_1HRK.device.type == "cpu" and not attention_products.runs_here():
        row = tuple(tensor.to(torch.promote_types(dtype, torch.float32)) for tensor in row)  # type: ignore[assignment] # three tensors
    return matmul_attention(*row, segments, inputs.scoring, sinks_H=sinks_H).to(dtype)


def _flash_on_cuda(inputs: _AttentionInputs) -> torch.Tensor:
    row, scaling = _of_one_width(*inputs.row, inputs.scoring.scaling, step=cuda_varlen.FLASH_STEP)
    out_1RHK = cuda_varlen.packed_attention(
        *row, document_tokens=inputs.layout.document_tokens, scaling=scaling, window=inputs.scoring.window
    )
    return _as_wide(out_1RHK, inputs.value_1GRV)


def _as_wide(out_1RHK: torch.Tensor, value_1GRV: torch.Tensor) -> torch.Tensor:
    """[1, R, H, V]: without the columns of zeros."""
    width = value_1GRV.shape[3]
    return out_1RHK if out_1RHK.shape[3] == width else out_1RHK.narrow(3, 0, width)


_Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values."""


def _of_one_width(
    query_1HRK: torch.Tensor, key_1GRK: torch.Tensor, value_1GRV: torch.Tensor, scaling: float | None, *, step: int = 1
) -> tuple[_Row, float | None]:
    """The row with zeros behind what is narrower, for kernels that know one width, and the scaling of its own width.

    Zeros add nothing to a score, and give columns of the output that nobody reads.
    """
    head_width = query_1HRK.shape[3]
    width = -(-max(head_width, value_1GRV.shape[3]) // step) * step
    if head_width == value_1GRV.shape[3] == width:
        return (query_1HRK, key_1GRK, value_1GRV), scaling
    query, key, value = (pad(tensor, (0, width - tensor.shape[3])) for tensor in (query_1HRK, key_1GRK, value_1GRV))
    return (query, key, value), head_width**-0.5 if scaling is None else scaling


def _bias(attention_mask: Reach | torch.Tensor | None, position_bias: torch.Tensor | None) -> torch.Tensor | None:
    """What a model adds to scores, [1, H or 1, R or 1, R], or where it is bool, which tokens it lets see."""
    mask = attention_mask if isinstance(attention_mask, torch.Tensor) else None
    for bias in (mask, position_bias):
        if bias is not None and bias.ndim != 4:
            raise UnknownAttentionError(f"a mask of {bias.ndim} dimensions is not known here")
    if mask is None or position_bias is None:
        return position_bias if mask is None else mask
    if mask.dtype != torch.bool:
        return mask + position_bias
    return position_bias.masked_fill(~mask, torch.finfo(position_bias.dtype).min)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One call of the kernel, as places of the row: a stretch with itself, causally, or with what continues it."""

    queries: slice
    keys: slice
    causal: bool

    @property
    def places(self) -> tuple[slice, slice, slice]:
        """Of its queries, keys and values."""
        return self.queries, self.keys, self.keys


def _pieces(layout: Layout) -> list[_Piece]:
    """Every pair of a token and one that it attends to, once; the causal pieces come first and cover the row.

    What continues a stretch is mostly laid down behind it without a gap, and is then one piece.
    """
    bounds = layout.places
    continuations: list[list[tuple[int, int]]] = [[] for _ in bounds]
    for chain, (start, end) in zip(layout.chains(), bounds, strict=True):
        for parent in chain[:-1]:
            joins = continuations[parent] and continuations[parent][-1][1] == start
            continuations[parent].append((continuations[parent].pop()[0] if joins else start, end))
    causal = [_Piece(slice(*span), slice(*span), True) for span in bounds]
    return causal + [
        _Piece(slice(*run), slice(*span), False)
        for span, runs in zip(bounds, continuations, strict=True)
        for run in runs
    ]


class _PackedAttention(torch.autograd.Function):
    """Flash attention of a packed row on the CPU, piece by piece, written into one output.

    Autograd alone would keep each piece's output beside the joined one, and what was widened for the kernel.

    A token of a stretch with parents has a piece for each of them, whose outputs are averaged with the sums of their
    exponentials as weights. The backward kernel takes probabilities to be exp(score - logarithm of the sum), and what
    they lose to their normalisation from the output; so with those of all pieces together it finds each piece's part
    of the gradients. Source: Dao 2023, FlashAttention-2, algorithm 2; done so by Liu et al. 2023, Ring Attention.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        query_1HRK: torch.Tensor,
        key_1GRK: torch.Tensor,
        value_1GRK: torch.Tensor,
        pieces: list[_Piece],
        scaling: float | None,
        widen: bool,
    ) -> torch.Tensor:
        _, heads, tokens, width = query_1HRK.shape
        out_1RHK = query_1HRK.new_empty(1, tokens, heads, width, dtype=_summed_in(query_1HRK, pieces))
        sums_1RH = query_1HRK.new_empty(1, tokens, heads, dtype=torch.promote_types(query_1HRK.dtype, torch.float32))
        rows = [tensor.float() if widen else tensor for tensor in (query_1HRK, key_1GRK, value_1GRK)]
        for piece in pieces:
            inputs = (row[:, :, span] for row, span in zip(rows, piece.places, strict=True))
            piece_out_1HQK, sums_1HQ = FLASH(*inputs, 0.0, piece.causal, scale=scaling)
            piece_out_1QHK, sums_1QH = piece_out_1HQK.transpose(1, 2), sums_1HQ.transpose(1, 2)
            if piece.causal:
                out_1RHK[:, piece.queries], sums_1RH[:, piece.queries] = piece_out_1QHK, sums_1QH
            else:
                _merge(out_1RHK[:, piece.queries], sums_1RH[:, piece.queries], piece_out_1QHK, sums_1QH)
        out_1RHK = out_1RHK.to(query_1HRK.dtype)
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK, out_1RHK, sums_1RH)
        ctx.pieces, ctx.scaling, ctx.widen = pieces, scaling, widen
        return out_1RHK

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK, out_1RHK, sums_1RH = ctx.saved_tensors
        upstream_1HRK, out_1HRK, sums_1HR = (tensor.transpose(1, 2) for tensor in (upstream[0], out_1RHK, sums_1RH))
        dtype = _summed_in(query_1HRK, ctx.pieces)
        grads = [torch.empty_like(tensor, dtype=dtype) for tensor in (query_1HRK, key_1GRK, value_1GRK)]
        needed = (upstream_1HRK, query_1HRK, key_1GRK, value_1GRK, out_1HRK)
        rows = [tensor.float() if ctx.widen else tensor for tensor in needed]
        for piece in ctx.pieces:
            spans = (piece.queries, *piece.places, piece.queries)
            inputs = (row[:, :, span] for row, span in zip(rows, spans, strict=True))
            piece_grads = FLASH_BACKWARD(*inputs, sums_1HR[:, :, piece.queries], 0.0, piece.causal, scale=ctx.scaling)
            for grad, span, piece_grad in zip(grads, piece.places, piece_grads, strict=True):
                if piece.causal:
                    grad[:, :, span] = piece_grad
                else:
                    grad[:, :, span].add_(piece_grad)
            del piece_grads, piece_grad  # else they would lie beside those of the next piece
        return (*(grad.to(query_1HRK.dtype) for grad in grads), None, None, None)


def _summed_in(query_1HRK: torch.Tensor, pieces: Sequence[_Piece]) -> torch.dtype:
    """fp32 or wider if pieces are added up; the row's own dtype if each is only put in its place."""
    alone = all(piece.causal for piece in pieces)
    return query_1HRK.dtype if alone else torch.promote_types(query_1HRK.dtype, torch.float32)


def _merge(
    out_1QHK: torch.Tensor, sums_1QH: torch.Tensor, piece_out_1QHK: torch.Tensor, piece_sums_1QH: torch.Tensor
) -> None:
    """Attention to some keys, and the logarithms of its sums, become attention to those and the piece's keys, in place.

    Source: Dao 2023, FlashAttention-2, section 2.3, of two blocks.
    """
    share_1QH1 = (piece_sums_1QH - sums_1QH).sigmoid_().unsqueeze(-1)
    out_1QHK.lerp_(piece_out_1QHK.to(out_1QHK.dtype), share_1QH1)
    torch.logaddexp(sums_1QH, piece_sums_1QH, out=sums_1QH)


def use_packed_attention(model: Any) -> None:
    """Make `model` attend inside documents only; its forward then needs `document_tokens`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, document_attention)
    AttentionMaskInterface.register(NAME, reach_mask)
    model.set_attn_implementation(NAME)


def use_generation_attention(model: Any) -> None:
    """Give `model` the attention a server uses: padding masks and a key/value cache, in PyTorch's kernel if it can."""
    if model._can_set_attn_implementation():  # else it has never attended otherwise
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
