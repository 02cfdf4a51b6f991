"""On which device a model computes here, in which precision, and its weights cast to that."""

from __future__ import annotations

from typing import Literal

import torch

from tutelage.system.hardware import cpu_multiplies_bf16

Precision = Literal["fp32", "bf16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def device_here() -> Literal["cpu", "cuda"]:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(requested: Literal["auto", "fp32", "bf16"]) -> Precision:
    """The precision asked for; for "auto", bf16 where this machine's hardware multiplies it, else fp32."""
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_multiplies_bf16() else "fp32"


def cast_model(model: torch.nn.Module, precision: Precision) -> None:
    """Cast every parameter; buffers stay as they are, as rotary frequencies lose their meaning in bf16.

    Weights in 4 bits stay, too: they are whole numbers, and are widened to `precision` for each product.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(DTYPES[precision])
