"""The low-rank pairs of an adapted model by the names of their parameters, and what each adds to a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AdapterPair:
    """Adds scale * B A to a weight; beside the stacked weights of experts, a product for each of them.

    Attributes:
        first: name of A, [rank * experts, in], the rows of one expert after those of another.
        second: name of B, [out, rank * experts], the columns of experts in turn.
        scale: of their product.
        experts: 1 for a layer.
    """

    first: str
    second: str
    scale: float
    experts: int = 1


def adapter_pairs(model: Any) -> tuple[AdapterPair, ...]:
    """The pairs of PEFT's active adapter that are trained; none for a model without one."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    pairs = []
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        experts = layer.num_experts if isinstance(layer, ParamWrapper) else 1
        for slot in layer.active_adapters:
            if slot in layer.lora_A:
                both = layer.lora_A[slot].weight, layer.lora_B[slot].weight
            elif slot in layer.lora_embedding_A:
                both = layer.lora_embedding_A[slot], layer.lora_embedding_B[slot]
            else:
                continue
            if all(id(parameter) in names for parameter in both):
                first, second = (names[id(parameter)] for parameter in both)
                pairs.append(AdapterPair(first, second, float(layer.scaling[slot]), experts))
    return tuple(pairs)
