"""Attention inside documents whose backward pass is left to autograd: with dropout, with a bias, on other devices.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width, Q = tokens that attend
in one call, C = tokens they attend to, B = those of C that a block meets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import dropout as dropped
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from tutelage.model.attention.cpu_bf16 import Scoring, Segment
from tutelage.model.attention.layout import Layout


def attention_by_autograd(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    layout: Layout,
    *,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """[1, R, H, K] on any device and with dropout: PyTorch's own attention of one stretch after the other."""
    queries, keys, values = (
        tensor.split(layout.document_tokens, dim=2) for tensor in (query_1HRK, key_1GRK, value_1GRK)
    )
    segments = []
    for query, chain in zip(queries, layout.chains(), strict=True):
        above = [keys[index] for index in chain], [values[index] for index in chain]
        if len(chain) > 1:  # recomputed, as a parent's keys and values would be kept once for each of its children
            segments.append(
                checkpoint(_continue, query, *above, scaling, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            key, value = above[0][0], above[1][0]
            segments.append(
                scaled_dot_product_attention(
                    query, key, value, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True
                )
            )
    return torch.cat(segments, dim=2).transpose(1, 2)


def _continue(
    query_1HQK: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], scaling: float | None
) -> torch.Tensor:
    """Attention of a stretch to itself and its parents on any device; `keys` and `values` [1, G, tokens, K] of each."""
    key_1GCK, value_1GCK = torch.cat(keys, dim=2), torch.cat(values, dim=2)
    queries, tokens = query_1HQK.shape[2], key_1GCK.shape[2]
    mask_QC = torch.ones(queries, tokens, dtype=torch.bool, device=query_1HQK.device).tril_(tokens - queries)
    return scaled_dot_product_attention(query_1HQK, key_1GCK, value_1GCK, mask_QC, scale=scaling, enable_gqa=True)


@dataclass(frozen=True, slots=True)
class _Block:
    """Where the first token of a block and the first key it meets lie in their document, and what becomes of scores."""

    first_query: int
    first_key: int
    scoring: Scoring
    dropout: float


def attention_in_blocks(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    segments: list[Segment],
    scoring: Scoring,
    *,
    sinks_H: torch.Tensor | None = None,
    bias_1HRR: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """The same by its definition, with all that a layer may ask for; scores exist for a block of tokens at a time.

    Args:
        query_1HRK: and the two others, of one dtype.
        key_1GRK: keys.
        value_1GRK: values.
        segments: cover the row in its order.
        scoring: what becomes of scores.
        sinks_H: as in `attention_products.matmul_attention`.
        bias_1HRR: added to scores, or where it is bool, where tokens are seen; its heads and rows may be 1.
        dropout: share of the weights that is zeroed.

    Returns:
        [1, R, H, K].
    """
    block_outputs = []
    for segment in segments:
        key_GCK, value_GCK = segment.gathered(key_1GRK[0]), segment.gathered(value_1GRK[0])
        for block in segment.blocks(query_1HRK.shape[1], scoring.window):
            bias_HQB = None
            if bias_1HRR is not None:
                rows_HQR = bias_1HRR[0] if bias_1HRR.shape[2] == 1 else bias_1HRR[0, :, block.place]
                bias_HQB = segment.gathered(rows_HQR.transpose(1, 2)).transpose(1, 2)[..., block.met]
            attended = partial(
                _attended, block=_Block(block.keys - block.tokens, block.first, scoring, dropout), sinks_H=sinks_H
            )
            block_outputs.append(
                checkpoint(
                    attended,
                    query_1HRK[0, :, block.place],
                    key_GCK[:, block.met],
                    value_GCK[:, block.met],
                    bias_HQB,
                    use_reentrant=False,
                    preserve_rng_state=dropout > 0,
                )
            )
    return torch.cat(block_outputs, dim=1).transpose(0, 1)[None]


def _attended(
    query_HQK: torch.Tensor,
    key_GBK: torch.Tensor,
    value_GBK: torch.Tensor,
    bias_HQB: torch.Tensor | None,
    *,
    block: _Block,
    sinks_H: torch.Tensor | None,
) -> torch.Tensor:
    """[H, Q, K] of one block."""
    wide = torch.promote_types(query_HQK.dtype, torch.float32)
    scoring, heads = block.scoring, len(query_HQK)
    key_HBK, value_HBK = (
        tensor.repeat_interleave(heads // len(tensor), dim=0).to(wide) for tensor in (key_GBK, value_GBK)
    )
    scaling = query_HQK.shape[2] ** -0.5 if scoring.scaling is None else scoring.scaling
    scores_HQB = query_HQK.to(wide) @ key_HBK.transpose(1, 2) * scaling
    if scoring.cap is not None:
        scores_HQB = scoring.cap * (scores_HQB / scoring.cap).tanh()
    query_Q1, key_B = (
        torch.arange(first, first + count, device=query_HQK.device)
        for first, count in ((block.first_query, query_HQK.shape[1]), (block.first_key, key_GBK.shape[1]))
    )
    query_Q1 = query_Q1[:, None]
    visible_QB = key_B <= query_Q1
    if scoring.window is not None:
        visible_QB &= key_B > query_Q1 - scoring.window
    if bias_HQB is not None and bias_HQB.dtype == torch.bool:
        visible_QB = visible_QB & bias_HQB
    elif bias_HQB is not None:
        scores_HQB = scores_HQB + bias_HQB
    scores_HQB = scores_HQB.masked_fill(~visible_QB, torch.finfo(wide).min)
    if sinks_H is not None:
        sinks_HQ1 = sinks_H.to(wide)[:, None, None].expand(-1, scores_HQB.shape[1], 1)
        weights_HQB = torch.cat([scores_HQB, sinks_HQ1], dim=-1).softmax(-1)[..., :-1]
    else:
        weights_HQB = scores_HQB.softmax(-1)
    return (dropped(weights_HQB, block.dropout) @ value_HBK).to(query_HQK.dtype)
