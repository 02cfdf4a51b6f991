"""What a model was made into for training: how much of it learns, in numbers and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from tutelage.model.quantization import parameter_count, quantized_count, stored_bytes

Method = Literal["full", "lora", "qlora", "prompt"]


@dataclass(frozen=True, slots=True)
class Trainable:
    """What will be trained.

    Attributes:
        method: how.
        parameters: in all, adapters included; a weight in 4 bits counts once.
        trainable: how many of them learn.
        weight_bytes: all parameters as they lie in memory before the run casts them.
        trainable_bytes: the fp32 masters of those that learn.
        four_bit: how many parameters are stored in 4 bits.
        notes: what a user should know about it.
        start: an adapter's tensors before the first step, in fp32 and PEFT's names, where its initialisation has
            changed the base; empty elsewhere. `export.model_folder` subtracts them.
    """

    method: Method
    parameters: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int
    four_bit: int = 0
    notes: tuple[str, ...] = ()
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)


def trainable_summary(
    model: torch.nn.Module,
    method: Method,
    *,
    notes: tuple[str, ...] = (),
    start: Mapping[str, torch.Tensor] | None = None,
) -> Trainable:
    """The record of a model whose parameters are marked as learning or not."""
    parameters = list(model.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return Trainable(
        method,
        parameters=sum(parameter_count(parameter) for parameter in parameters),
        trainable=trainable,
        weight_bytes=sum(stored_bytes(parameter) for parameter in parameters),
        trainable_bytes=4 * trainable,
        four_bit=quantized_count(model),
        notes=notes,
        start=start or {},
    )
