"""Bytes of optimizer state before there is any: optimizers make theirs at the first step."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from tutelage.train.optimiser import Optimizer

FP32 = 4
BLOCK, SMALLEST_QUANTISED = 256, 4096
"""Numbers that share a scale in an 8-bit moment, and the smallest parameter that has one. Source: bitsandbytes 0.50."""


def state_bytes(
    name: Optimizer, masters: Mapping[str, torch.Tensor], *, embeddings: Collection[str], averaged: bool
) -> int:
    """What the optimizer of that name will hold for `masters`, step counts and lookup tables left out.

    Args:
        name: as in `train.optimiser.optimizer_named`.
        masters: fp32 master weights by name.
        embeddings: names whose moments stay in fp32 in 8-bit AdamW, and that Muon leaves to AdamW.
        averaged: a moving average of the masters is kept, too.
    """
    moments = sum(_moments(name, one, is_embedding=key in embeddings) for key, one in masters.items())
    return moments + (FP32 * sum(one.numel() for one in masters.values()) if averaged else 0)


def _moments(name: Optimizer, master: torch.Tensor, *, is_embedding: bool) -> int:
    size = master.numel()
    if name == "adafactor":  # a row and a column of each matrix: Shazeer and Stern 2018, section 3
        return FP32 * (size // master.shape[-1] + size // master.shape[-2] if master.ndim >= 2 else size)
    if name == "muon" and master.ndim == 2 and not is_embedding:
        return FP32 * size
    if name.endswith("_8bit") and not is_embedding and size >= SMALLEST_QUANTISED:
        return 2 * (size + FP32 * -(-size // BLOCK))
    return 2 * FP32 * size
