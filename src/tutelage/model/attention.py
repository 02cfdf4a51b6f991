"""Attention that never crosses a document boundary, through transformers' attention interface.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width,
Q = tokens that attend in one call, C = tokens they attend to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from tutelage.model import attention_cuda, attention_products
from tutelage.model.attention_products import Stretch, multiplied_attention

NAME = "tutelage_documents"

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
"""What `scaled_dot_product_attention` itself calls on a CPU, with the logarithms of its sums, which backward wants."""

WIDEN_BELOW_TOKENS = 1024
"""Where attention in bf16 goes to torch's kernel, a row of documents shorter than this is computed in fp32: the bf16
backward pass has a cost for each call that fp32 has not. Source: docs/log.md, "Attention over short documents"."""


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
    as_on: str | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document of a packed row.

    One kernel call for each document costs the sum of their squared lengths, where a block mask over the whole row
    would cost the square of the sum. A document with a parent also attends to the tokens of its parents; see
    `types.Row`. `as_on` is the kind of device whose way of computing the planner looks at from another.

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
    chains = _chains(document_tokens, parents)
    longest = max(sum(document_tokens[one] for one in chain) for chain in chains)
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(f"a document of {longest} tokens is longer than the window of {sliding_window}")
    if not parents and attention_cuda.runs_here(query_1HRK, dropout=dropout):
        found_1RHK = attention_cuda.packed_attention(
            query_1HRK, key_1GRK, value_1GRK, document_tokens=document_tokens, scaling=scaling
        )
        return found_1RHK, None
    assert not parents or dropout == 0.0, "documents that share a beginning would share its dropout"
    if query_1HRK.device.type == "cpu" and dropout == 0.0:
        if query_1HRK.dtype == torch.bfloat16 and as_on in {None, "cpu"} and attention_products.runs_here():
            stretches = _stretches(document_tokens, chains)
            return multiplied_attention(query_1HRK, key_1GRK, value_1GRK, stretches, scaling), None
        widen = longest < WIDEN_BELOW_TOKENS and torch.finfo(query_1HRK.dtype).bits < 32
        out_1RHK: torch.Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            query_1HRK, key_1GRK, value_1GRK, _pieces(document_tokens, chains), scaling, widen
        )
        return out_1RHK, None
    by_autograd_1RHK = attention_by_autograd(
        query_1HRK, key_1GRK, value_1GRK, document_tokens, parents, dropout=dropout, scaling=scaling
    )
    return by_autograd_1RHK, None


def _chains(document_tokens: tuple[int, ...], parents: tuple[int, ...]) -> list[tuple[int, ...]]:
    """For each stretch those it attends to: its parents, the outermost first, and itself."""
    chains: list[tuple[int, ...]] = []
    for number, parent in enumerate(parents or (-1,) * len(document_tokens)):
        chains.append((*(chains[parent] if parent >= 0 else ()), number))
    return chains


def _stretches(document_tokens: tuple[int, ...], chains: Sequence[tuple[int, ...]]) -> list[Stretch]:
    places = [slice(*place) for place in pairwise(accumulate(document_tokens, initial=0))]
    return [Stretch(places[chain[-1]], tuple(places[one] for one in chain[:-1])) for chain in chains]


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


def _pieces(document_tokens: tuple[int, ...], chains: Sequence[tuple[int, ...]]) -> list[_Piece]:
    """Every pair of a token and one that it attends to, once; the causal pieces come first and cover the row.

    What continues a stretch is mostly laid down behind it without a gap, and is then one piece.
    """
    places = list(pairwise(accumulate(document_tokens, initial=0)))
    behind: list[list[tuple[int, int]]] = [[] for _ in places]
    for chain, (start, end) in zip(chains, places, strict=True):
        for parent in chain[:-1]:
            joins = behind[parent] and behind[parent][-1][1] == start
            behind[parent].append((behind[parent].pop()[0] if joins else start, end))
    causal = [_Piece(slice(*own), slice(*own), True) for own in places]
    return causal + [
        _Piece(slice(*run), slice(*own), False) for own, runs in zip(places, behind, strict=True) for run in runs
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
        rows = [one.float() if widen else one for one in (query_1HRK, key_1GRK, value_1GRK)]
        for piece in pieces:
            taken = (row[:, :, place] for row, place in zip(rows, piece.places, strict=True))
            found_1HQK, sums_1HQ = FLASH(*taken, 0.0, piece.causal, scale=scaling)
            found_1QHK, sums_1QH = found_1HQK.transpose(1, 2), sums_1HQ.transpose(1, 2)
            if piece.causal:
                out_1RHK[:, piece.queries], sums_1RH[:, piece.queries] = found_1QHK, sums_1QH
            else:
                _merge(out_1RHK[:, piece.queries], sums_1RH[:, piece.queries], found_1QHK, sums_1QH)
        out_1RHK = out_1RHK.to(query_1HRK.dtype)
        ctx.save_for_backward(query_1HRK, key_1GRK, value_1GRK, out_1RHK, sums_1RH)
        ctx.pieces, ctx.scaling, ctx.widen = pieces, scaling, widen
        return out_1RHK

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_1HRK, key_1GRK, value_1GRK, out_1RHK, sums_1RH = ctx.saved_tensors
        given_1HRK, out_1HRK, sums_1HR = (one.transpose(1, 2) for one in (upstream[0], out_1RHK, sums_1RH))
        dtype = _summed_in(query_1HRK, ctx.pieces)
        grads = [torch.empty_like(one, dtype=dtype) for one in (query_1HRK, key_1GRK, value_1GRK)]
        needed = (given_1HRK, query_1HRK, key_1GRK, value_1GRK, out_1HRK)
        rows = [one.float() if ctx.widen else one for one in needed]
        for piece in ctx.pieces:
            places = (piece.queries, *piece.places, piece.queries)
            taken = (row[:, :, place] for row, place in zip(rows, places, strict=True))
            parts = FLASH_BACKWARD(*taken, sums_1HR[:, :, piece.queries], 0.0, piece.causal, scale=ctx.scaling)
            for grad, place, part in zip(grads, piece.places, parts, strict=True):
                if piece.causal:
                    grad[:, :, place] = part
                else:
                    grad[:, :, place].add_(part)
            del parts, part  # else they would lie beside those of the next piece
        return (*(one.to(query_1HRK.dtype) for one in grads), None, None, None)


def _summed_in(query_1HRK: torch.Tensor, pieces: Sequence[_Piece]) -> torch.dtype:
    """fp32 or wider if pieces are added up; the row's own dtype if each is only put in its place."""
    alone = all(piece.causal for piece in pieces)
    return query_1HRK.dtype if alone else torch.promote_types(query_1HRK.dtype, torch.float32)


def _merge(
    out_1QHK: torch.Tensor, sums_1QH: torch.Tensor, found_1QHK: torch.Tensor, found_sums_1QH: torch.Tensor
) -> None:
    """Attention to some keys, and the logarithms of its sums, become attention to those and the found ones, in place.

    Source: Dao 2023, FlashAttention-2, section 2.3, of two blocks.
    """
    share_1QH1 = (found_sums_1QH - sums_1QH).sigmoid_().unsqueeze(-1)
    out_1QHK.lerp_(found_1QHK.to(out_1QHK.dtype), share_1QH1)
    torch.logaddexp(sums_1QH, found_sums_1QH, out=sums_1QH)


def attention_by_autograd(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    document_tokens: tuple[int, ...],
    parents: tuple[int, ...],
    *,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """The same [1, R, H, K] on any device and with dropout: PyTorch's own attention of one stretch after the other."""
    queries, keys, values = (one.split(document_tokens, dim=2) for one in (query_1HRK, key_1GRK, value_1GRK))
    stretches = []
    for query, chain in zip(queries, _chains(document_tokens, parents), strict=True):
        above = [keys[one] for one in chain], [values[one] for one in chain]
        if len(chain) > 1:  # recomputed, as a parent's keys and values would be kept once for each of its children
            stretches.append(
                checkpoint(_continue, query, *above, scaling, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            key, value = above[0][0], above[1][0]
            stretches.append(
                scaled_dot_product_attention(
                    query, key, value, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True
                )
            )
    return torch.cat(stretches, dim=2).transpose(1, 2)


def _continue(
    query_1HQK: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], scaling: float | None
) -> torch.Tensor:
    """Attention of a stretch to itself and its parents on any device; `keys` and `values` [1, G, tokens, K] of each."""
    key_1GCK, value_1GCK = torch.cat(keys, dim=2), torch.cat(values, dim=2)
    queries, tokens = query_1HQK.shape[2], key_1GCK.shape[2]
    mask_QC = torch.ones(queries, tokens, dtype=torch.bool, device=query_1HQK.device).tril_(tokens - queries)
    return scaled_dot_product_attention(query_1HQK, key_1GCK, value_1GCK, mask_QC, scale=scaling, enable_gqa=True)


def isolate_documents(model: Any) -> None:
    """Make `model` attend inside documents only; its forward then needs `document_tokens`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, document_attention)
    model.set_attn_implementation(NAME)


def attend_as_served(model: Any) -> None:
    """Give `model` the attention a server uses: padding masks and a key/value cache, in PyTorch's kernel if it can."""
    if model._can_set_attn_implementation():  # else it has never attended otherwise
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
