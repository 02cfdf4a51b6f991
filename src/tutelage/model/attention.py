"""Attention that never crosses a document boundary, through transformers' attention interface.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width,
Q = tokens of one stretch, C = those and its parents'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tutelage.model import attention_cuda

NAME = "tutelage_documents"

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
"""What `scaled_dot_product_attention` itself calls on a CPU, with the logarithms of its sums, which backward wants."""

Chain = tuple[tuple[int, int], ...]
"""Places [a, b) of a row: those of a stretch's parents, the outermost first, and its own."""

WIDEN_BELOW_TOKENS = 1024
"""On a CPU, bf16 attention over documents shorter than this is computed in fp32: its backward pass has a cost for each
call that fp32 has not. Source: docs/log.md, "Attention over short documents"."""


def document_attention(
    _module: torch.nn.Module,
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_tokens: tuple[int, ...],
    parents: tuple[int, ...] = (),
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document of a packed row.

    One kernel call for each document costs the sum of their squared lengths, where a block mask over the whole row
    would cost the square of the sum. A document with a parent also attends to the tokens of its parents; see
    `types.Row`.

    Returns:
        [1, R, H, K] and None (no attention weights).

    Raises:
        ValueError: the model asks for something this function does not compute.
    """
    if attention_mask is not None or query_1HRK.shape[0] != 1:
        raise ValueError("document attention takes one packed row and no mask")
    if softcap is not None:
        raise ValueError("this model caps its attention scores, which document attention does not compute")
    if s_aux is not None:
        raise ValueError("this model has attention sinks (s_aux), which document attention does not compute")
    spans = _spans(document_tokens, parents)
    longest = max(sum(b - a for a, b in chain) for chain in spans)
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(f"a document of {longest} tokens is longer than the window of {sliding_window}")
    if not parents and attention_cuda.runs_here(query_1HRK, dropout=dropout):
        found_1RHK = attention_cuda.packed_attention(
            query_1HRK, key_1GRK, value_1GRK, document_tokens=document_tokens, scaling=scaling
        )
        return found_1RHK, None
    stored = query_1HRK.dtype
    widen = query_1HRK.device.type == "cpu" and longest < WIDEN_BELOW_TOKENS and stored != torch.float32
    if parents:
        assert dropout == 0.0, "attention dropout would be drawn anew in the backward pass"
        if widen:
            query_1HRK, key_1GRK, value_1GRK = query_1HRK.float(), key_1GRK.float(), value_1GRK.float()
        out_1HRK: torch.Tensor = _SharedPrefixAttention.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            query_1HRK, key_1GRK, value_1GRK, spans, scaling
        )
        return out_1HRK.transpose(1, 2).to(stored), None
    if query_1HRK.device.type == "cpu" and dropout == 0.0:
        out_1RHK: torch.Tensor = _DocumentAttention.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            query_1HRK, key_1GRK, value_1GRK, document_tokens, scaling, widen
        )
        return out_1RHK, None
    split = (one.split(document_tokens, dim=2) for one in (query_1HRK, key_1GRK, value_1GRK))
    pieces = [
        scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _spans(document_tokens: tuple[int, ...], parents: tuple[int, ...]) -> list[Chain]:
    """For each stretch the places [a, b) it attends to: its parents', the outermost first, and its own."""
    chains: list[Chain] = []
    start = 0
    for tokens, parent in zip(document_tokens, parents or (-1,) * len(document_tokens), strict=True):
        chains.append((*(chains[parent] if parent >= 0 else ()), (start, start + tokens)))
        start += tokens
    return chains


class _DocumentAttention(torch.autograd.Function):
    """Flash attention of one document after the other on the CPU, written into one output.

    Autograd alone would keep each document's output beside the joined one, and in fp32 what was widened for the kernel.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        query_1HRK: torch.Tensor,
        key_1GRK: torch.Tensor,
        value_1GRK: torch.Tensor,
        document_tokens: tuple[int, ...],
        scaling: float | None,
        widen: bool,
    ) -> torch.Tensor:
        batch, heads, tokens, width = query_1HRK.shape
        out_1RHK = query_1HRK.new_empty(batch, tokens, heads, width)
        sums = []
        for place, *taken in _documents(document_tokens, widen, query_1HRK, key_1GRK, value_1GRK):
            found_1HTK, log_sums = FLASH(*taken, 0.0, True, scale=scaling)
            out_1RHK[:, place] = found_1HTK.transpose(1, 2)
            sums.append(log_sums)
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK, out_1RHK, *sums)
        ctx.document_tokens, ctx.scaling, ctx.widen = document_tokens, scaling, widen
        return out_1RHK

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK, out_1RHK, *sums = ctx.saved_tensors
        grads = [torch.empty_like(one) for one in (query_1HRK, key_1GRK, value_1GRK)]
        given = (upstream[0].transpose(1, 2), query_1HRK, key_1GRK, value_1GRK, out_1RHK.transpose(1, 2))
        documents = _documents(ctx.document_tokens, ctx.widen, *given)
        for (place, *taken), log_sums in zip(documents, sums, strict=True):
            for grad, part in zip(grads, FLASH_BACKWARD(*taken, log_sums, 0.0, True, scale=ctx.scaling), strict=True):
                grad[:, :, place] = part
        return (*grads, None, None, None)


def _documents(document_tokens: tuple[int, ...], widen: bool, *rows: torch.Tensor) -> Iterator[tuple[Any, ...]]:
    """For each document its place in the row, and its part of each [1, heads, R, K]."""
    start = 0
    for tokens in document_tokens:
        place = slice(start, start + tokens)
        yield (place, *(one[:, :, place].float() if widen else one[:, :, place] for one in rows))
        start += tokens


class _SharedPrefixAttention(torch.autograd.Function):
    """Attention of stretches that continue others.

    Keys and values of a parent would be kept once for each of its children if autograd saw them joined; so only those
    of the row are kept, and each stretch is computed again in the backward pass. The gradients of a parent's keys and
    values are the sums over its children.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_1HRK: torch.Tensor,
        key_1GRK: torch.Tensor,
        value_1GRK: torch.Tensor,
        spans: list[Chain],
        scaling: float | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK)
        ctx.spans, ctx.scaling = spans, scaling
        pieces = [
            _attend(query_1HRK[:, :, slice(*chain[-1])], _at(key_1GRK, chain), _at(value_1GRK, chain), scaling)
            for chain in spans
        ]
        return torch.cat(pieces, dim=2)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK = ctx.saved_tensors
        grads = [torch.zeros_like(one) for one in (query_1HRK, key_1GRK, value_1GRK)]
        for chain in ctx.spans:
            own = slice(*chain[-1])
            query = query_1HRK[:, :, own].detach().requires_grad_()
            key, value = (_at(one, chain).detach().requires_grad_() for one in (key_1GRK, value_1GRK))
            with torch.enable_grad():
                out = _attend(query, key, value, ctx.scaling)
            query, key, value = torch.autograd.grad(out, (query, key, value), upstream[0][:, :, own])
            grads[0][:, :, own] = query
            for total, joined in ((grads[1], key), (grads[2], value)):
                for (a, b), part in zip(chain, joined.split([b - a for a, b in chain], dim=2), strict=True):
                    total[:, :, a:b] += part
        return (*grads, None, None)


def _at(row_1GRK: torch.Tensor, chain: Chain) -> torch.Tensor:
    parts = [row_1GRK[:, :, a:b] for a, b in chain]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _attend(
    query_1HQK: torch.Tensor, key_1GCK: torch.Tensor, value_1GCK: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """The last Q of C tokens attend to all tokens up to themselves."""
    queries, keys = query_1HQK.shape[2], key_1GCK.shape[2]
    causal = queries == keys
    mask_QC = None
    if not causal:
        mask_QC = torch.ones(queries, keys, dtype=torch.bool, device=query_1HQK.device).tril_(keys - queries)
    return scaled_dot_product_attention(
        query_1HQK, key_1GCK, value_1GCK, mask_QC, is_causal=causal, scale=scaling, enable_gqa=True
    )


def isolate_documents(model: Any) -> None:
    """Make `model` attend inside documents only; its forward then needs `document_tokens`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, document_attention)
    model.set_attn_implementation(NAME)


def attend_as_served(model: Any) -> None:
    """Give `model` the attention a server uses: padding masks and a key/value cache."""
    model.set_attn_implementation("sdpa")
