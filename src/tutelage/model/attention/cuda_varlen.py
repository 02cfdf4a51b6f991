"""Attention inside documents on CUDA: one flash attention call for all documents of a packed row.

Through `torch.nn.attention.varlen`, which is part of PyTorch, so no other package is built or fetched.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width, N = documents.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import torch
from torch.nn.attention.varlen import varlen_attn

FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_WIDEST, FLASH_STEP = 256, 8
"""Head widths that the kernel takes: up to 256, in steps of 8. Source: torch.nn.attention.varlen and the checks of
aten::_flash_attention_forward, PyTorch 2.13."""


def runs_here(query_1HRK: torch.Tensor, value_1GRV: torch.Tensor, *, dropout: float) -> bool:
    """Whether flash attention computes this: on CUDA, in a narrow precision, no wider than it can, without dropout."""
    narrow = query_1HRK.dtype in FLASH_DTYPES and max(query_1HRK.shape[3], value_1GRV.shape[3]) <= FLASH_WIDEST
    return query_1HRK.device.type == "cuda" and narrow and dropout == 0.0


def packed_attention(
    query_1HRK: torch.Tensor,
    key_1GRK: torch.Tensor,
    value_1GRK: torch.Tensor,
    *,
    document_tokens: tuple[int, ...],
    scaling: float | None,
    window: int | None = None,
) -> torch.Tensor:
    """Causal attention inside each document of a packed row, to all that came before or to the last `window` tokens.

    Returns:
        [1, R, H, K].
    """
    ends_N1, longest = boundaries(document_tokens, query_1HRK.device)
    out_RHK = varlen_attn(
        query_1HRK.squeeze(0).transpose(0, 1),
        key_1GRK.squeeze(0).transpose(0, 1),
        value_1GRK.squeeze(0).transpose(0, 1),
        ends_N1,
        ends_N1,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),  # before its own token, and after
        enable_gqa=query_1HRK.shape[1] != key_1GRK.shape[1],
    )
    assert isinstance(out_RHK, torch.Tensor), "no auxiliary output was asked for"
    return out_RHK.unsqueeze(0)


@lru_cache(maxsize=8)
def boundaries(document_tokens: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, int]:
    """Where each document of a row starts and the last one ends, int32 [N+1] on the device, and the longest's tokens.

    Kept for a few rows, as every layer of a model asks for the same ones, and again in its backward pass.
    """
    ends = torch.tensor([0, *accumulate(document_tokens)], dtype=torch.int32)
    return ends.to(device, non_blocking=True), max(document_tokens)
