"""LoRA that starts as what 4 bits left out of each weight: LoftQ, Li et al. 2023, section 3, with one step (T = 1).

The base stays the one that plain QLoRA has, so a saved adapter opens on the model in 4 bits as any other does. PEFT
does the same in `replace_lora_weights_loftq`, but on a GPU only, and leaves out that the pair's output is scaled.

Shape legend: O = outputs and I = inputs of a layer, K = rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def quantized_layers(adapted: Any) -> list[tuple[str, Any]]:
    """The adapted layers whose weights are in 4 bits, each with its name in the base model."""
    from peft.tuners.lora import LoraLayer

    return [
        (name.removeprefix("base_model.model."), module)
        for name, module in adapted.named_modules()
        if type(module).__name__ == "Linear4bit" and isinstance(module, LoraLayer)
    ]


@torch.no_grad()
def init_from_quantization_error(adapted: Any, original: Any, *, done: Callable[[int], None] = lambda _: None) -> int:
    """Set each pair to the best approximation, of its rank, of what its layer lost when it was quantized.

    Args:
        adapted: PEFT's model with one adapter over weights of 4 bits, no layer narrower than its rank (see
            `model.adapters.lora.add_lora`).
        original: the same model before that, on any device.
        done: told after each layer, with 1.

    Returns:
        How many layers were filled.
    """
    from bitsandbytes.functional import dequantize_4bit

    layers = quantized_layers(adapted)
    for name, layer in layers:
        weight = layer.get_base_layer().weight
        rounded_OI = dequantize_4bit(weight.data, weight.quant_state).float()
        lost_OI = original.get_submodule(name).weight.to(rounded_OI) - rounded_OI
        (slot,) = layer.lora_A
        rank = layer.r[slot]
        # Source: Eckart and Young 1936: the first K of them are the nearest of rank K.
        left_OO, sizes, right_OI = torch.linalg.svd(lost_OI, full_matrices=False)
        roots_K = (sizes[:rank] / layer.scaling[slot]).sqrt()
        layer.lora_A[slot].weight.copy_(roots_K[:, None] * right_OI[:rank])
        layer.lora_B[slot].weight.copy_(left_OO[:, :rank] * roots_K)
        done(1)
    return len(layers)
