"""Attention that never crosses a document boundary, through transformers' attention interface.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tutelage.model import attention_cuda

NAME = "tutelage_documents"

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
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document of a packed row.

    One kernel call for each document costs the sum of their squared lengths, where a block mask over the whole row
    would cost the square of the sum.

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
    if sliding_window is not None and max(document_tokens) > sliding_window:
        raise ValueError(f"a document of {max(document_tokens)} tokens is longer than the window of {sliding_window}")
    if attention_cuda.runs_here(query_1HRK, dropout=dropout):
        found_1RHK = attention_cuda.packed_attention(
            query_1HRK, key_1GRK, value_1GRK, document_tokens=document_tokens, scaling=scaling
        )
        return found_1RHK, None
    stored = query_1HRK.dtype
    if query_1HRK.device.type == "cpu" and max(document_tokens) < WIDEN_BELOW_TOKENS:
        query_1HRK, key_1GRK, value_1GRK = query_1HRK.float(), key_1GRK.float(), value_1GRK.float()
    pieces = [
        scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True)
        for q, k, v in zip(
            query_1HRK.split(document_tokens, dim=2),
            key_1GRK.split(document_tokens, dim=2),
            value_1GRK.split(document_tokens, dim=2),
            strict=True,
        )
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2).to(stored), None


def isolate_documents(model: Any) -> None:
    """Make `model` attend inside documents only; its forward then needs `document_tokens`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, document_attention)
    model.set_attn_implementation(NAME)


def attend_as_served(model: Any) -> None:
    """Give `model` the attention a server uses: padding masks and a key/value cache."""
    model.set_attn_implementation("sdpa")
