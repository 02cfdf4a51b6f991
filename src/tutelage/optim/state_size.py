"""Bytes of optimizer state before there is any: optimizers make theirs at the first step.

A plan and a run ask here alike, the one by the shapes of what will be trained, the other by its master weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

FP32 = 4
BLOCK, SMALLEST_QUANTISED = 256, 4096
"""Numbers that share a scale in an 8-bit moment, and the smallest parameter that has one. Source: bitsandbytes 0.50."""


def state_bytes(
    optimizer: str, masters: Mapping[str, torch.Tensor], *, embeddings: Collection[str], averaged: bool
) -> int:
    """What the optimizer of that name will hold for `masters`, step counts and lookup tables left out.

    Args:
        optimizer: a value of `train.optimizer`.
        masters: fp32 master weights by name.
        embeddings: names whose moments stay in fp32 in 8-bit AdamW, and that Muon leaves to AdamW.
        averaged: a moving average of the masters is kept, too.
    """
    moments = sum(
        moment_bytes(optimizer, master.shape, is_embedding=name in embeddings) for name, master in masters.items()
    )
    return moments + (FP32 * sum(master.numel() for master in masters.values()) if averaged else 0)


def moment_bytes(optimizer: str, shape: Sequence[int], *, is_embedding: bool) -> int:
    """What the optimizer of that name holds for one trained parameter of that shape.

    AdamW keeps two fp32 moments (Loshchilov and Hutter 2019, algorithm 2). In 8 bits one byte each, and an fp32 scale
    for each block (Dettmers et al. 2022, section 2.1), but for embeddings and small parameters. Adafactor keeps a row
    and a column of each matrix (Shazeer and Stern 2018, section 3). Muon keeps one momentum for the matrices inside the
    model. Paged state lies in main memory as a GPU needs room.
    """
    size = math.prod(shape)
    if optimizer == "adafactor":
        return FP32 * (size // shape[-1] + size // shape[-2] if len(shape) >= 2 else size)
    if optimizer == "muon" and len(shape) == 2 and not is_embedding:
        return FP32 * size
    if optimizer.endswith("_8bit") and not is_embedding and size >= SMALLEST_QUANTISED:
        return 2 * (size + FP32 * -(-size // BLOCK))
    return 2 * FP32 * size


def embedding_parameters(model: Any) -> frozenset[str]:
    """Names of the parameters that belong to embeddings or the output head, adapters beside them included."""
    module_ids = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) or id(module) in module_ids:
            names.update(f"{name}.{parameter_name}" for parameter_name, _ in module.named_parameters())
    return frozenset(names)
