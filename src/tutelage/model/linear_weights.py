"""The weights that multiply inside a model's layers: what adapters and 4 bits are about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch


def layer_matrices(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each weight of two and more dimensions but embeddings, the output head and convolutions.

    Names are the base model's, and an adapter's own weights are left out, so that it does not matter whether the model
    has one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapter_prefixes = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    excluded_types = (torch.nn.Embedding, torch.nn.modules.conv._ConvNd)
    excluded_ids = {id(module.weight) for module in model.modules() if isinstance(module, excluded_types)}
    if (head := model.get_output_embeddings()) is not None:
        excluded_ids.add(id(head.weight))
    for name, parameter in model.named_parameters():
        multiplies = parameter.ndim > 1 or not parameter.is_floating_point()
        multiplies = multiplies and not name.endswith("bias")  # experts have one for each
        if (
            multiplies
            and id(parameter) not in excluded_ids
            and not (name.startswith(adapter_prefixes) and "lora_" in name)
        ):
            yield name.replace(".base_layer", ""), parameter


def of_any_layer(name: str) -> str:
    """A weight's name with `*` for the numbers of layers."""
    return re.sub(r"\.\d+(?=\.)", ".*", name)
