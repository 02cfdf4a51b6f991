"""What the layers and tensors of an exported model must be: each as the run's own model computes it.

A layer that an adapter or 4 bits changed is probed: the run's model is asked for its outputs of random inputs, and for
those that its weights give once they are rounded as they are written. Every other tensor must be the same bit for bit,
after one rounding to the precision it is written in.

Shape legend: R = probes, I = inputs and O = outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.export.fresh_process import digest

PROBES = 8
EMBEDDING_PROBES = 256
BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
"""Of a number's fraction, the leading one included (IEEE 754; bfloat16 as PyTorch has it)."""


@dataclass(frozen=True, slots=True)
class ExpectedTensors:
    """Of a plain model, by the names that transformers gives its modules and parameters.

    Attributes:
        probes: tensors `in:NAME` and `out:NAME` of each layer, or `by:NAME` and `out:NAME` of a tensor of experts; and
            `rounded:NAME` of layers whose written weights can be told bit for bit but for the order of sums.
        rounding: by layer, how far rounding moves its weights, as a share of their length; measured.
        exact: SHA-256 of each other tensor, of its numbers in fp32.
    """

    probes: Mapping[str, torch.Tensor]
    rounding: Mapping[str, float]
    exact: Mapping[str, str]


@torch.no_grad()
def expected_tensors(
    model: Any, dtype_of: Callable[[str], torch.dtype], *, merged: bool, seed: int = 0
) -> ExpectedTensors:
    """Ask the run's model for them.

    Args:
        model: as the run has it, in fp32 but for weights of 4 bits, at the value of the dial that is exported.
        dtype_of: the precision that a tensor of this name is written in.
        merged: the adapter is to be folded in; False leaves out the tensors of experts, which PEFT computes elsewhere.
        seed: of the probes.
    """
    random = torch.Generator().manual_seed(seed)
    probes: dict[str, torch.Tensor] = {}
    rounding: dict[str, float] = {}
    exact: dict[str, str] = {}
    written_as: dict[int, torch.dtype] = {}
    for name, layer, changed in _layers(model):
        if not changed:
            for tensor_name, tensor in _own_tensors(name, layer):  # a tied head is written under its other name
                exact[tensor_name] = digest(tensor.to(written_as.setdefault(id(tensor), dtype_of(tensor_name))))
        elif type(layer).__name__ == "ParamWrapper":
            if merged:
                _probe_experts(name, layer, probes, rounding, dtype_of, random)
            exact |= {
                tensor_name: digest(tensor.to(dtype_of(tensor_name)))
                for tensor_name, tensor in layer.get_base_layer().named_parameters(prefix=name)
                if tensor_name not in rounding and tensor.is_floating_point()
            }
        else:
            inputs = _inputs(layer, random)
            probes[f"in:{name}"] = inputs
            probes[f"out:{name}"] = layer(inputs.to(_device_of(layer))).float().cpu().contiguous()
            weight, dtype = plain_weight(layer), dtype_of(f"{name}.weight")
            rounding[name] = _rounding(weight, dtype) if merged else 0.0
            if merged and (total := _sum_of_pairs(layer, weight)) is not None:
                probes[f"rounded:{name}"] = _outputs(layer, total.to(dtype).float(), inputs)
    return ExpectedTensors(probes, rounding, exact)


def _layers(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """Each module with tensors of its own, by its plain name, and whether it was changed by an adapter or 4 bits."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import ModulesToSaveWrapper

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    inside: list[str] = []
    for name, module in inner.named_modules(remove_duplicate=False):
        if name.startswith(tuple(inside)):
            continue
        if isinstance(module, ModulesToSaveWrapper):
            inside.append(f"{name}.")
            trained = module.modules_to_save[module.active_adapters[0]]
            yield from (
                (f"{name}.{below}" if below else name, layer, False) for below, layer in trained.named_modules()
            )
        elif isinstance(module, LoraLayer) or _is_four_bit(module):
            inside.append(f"{name}.")
            yield name, module, True
        else:
            yield name, module, False


def _own_tensors(name: str, layer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for below, parameter in layer.named_parameters(recurse=False):
        if parameter.is_floating_point():
            yield f"{name}.{below}" if name else below, parameter


def _is_four_bit(module: Any) -> bool:
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def adapted_layers(model: Any) -> list[Any]:
    """The layers that a pair belongs to, of any kind."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def plain_weight(layer: Any) -> torch.Tensor:
    """The weight under a pair, or of 4 bits, as the numbers it stands for."""
    base = layer.get_base_layer() if callable(getattr(layer, "get_base_layer", None)) else layer
    if not _is_four_bit(base):
        weight: torch.Tensor = base.weight.detach()
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return torch.as_tensor(dequantize_4bit(base.weight.data, base.weight.quant_state))


def _sum_of_pairs(layer: Any, weight: torch.Tensor) -> torch.Tensor | None:
    """A layer's weight and what plain pairs add to it, in fp32; None where it is more than that, such as DoRA."""
    base = layer.get_base_layer() if callable(getattr(layer, "get_base_layer", None)) else layer
    if not isinstance(base, torch.nn.Linear):
        return None
    total = weight.detach().float()
    if base is layer:
        return total
    for slot in layer.active_adapters:
        if slot not in layer.lora_A or slot in layer.lora_variant or layer.lora_bias[slot]:
            return None
        total = total + layer.scaling[slot] * (layer.lora_B[slot].weight.float() @ layer.lora_A[slot].weight.float())
    return total


def _outputs(layer: Any, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    base = layer.get_base_layer() if callable(getattr(layer, "get_base_layer", None)) else layer
    bias = None if base.bias is None else base.bias.float()
    return torch.nn.functional.linear(inputs.to(weight.device), weight, bias).cpu().contiguous()


def _device_of(layer: Any) -> torch.device:
    device: torch.device = next(layer.parameters()).device
    return device


def _inputs(layer: Any, random: torch.Generator) -> torch.Tensor:
    base = layer.get_base_layer() if callable(getattr(layer, "get_base_layer", None)) else layer
    if isinstance(base, torch.nn.Embedding):
        return torch.randint(base.num_embeddings, (EMBEDDING_PROBES,), generator=random)
    return torch.randn(PROBES, layer.in_features, generator=random)


def _probe_experts(
    name: str,
    wrapper: Any,
    probes: dict[str, torch.Tensor],
    rounding: dict[str, float],
    dtype_of: Callable[[str], torch.dtype],
    random: torch.Generator,
) -> None:
    """Of each tensor of experts that has pairs its product with a random vector: [experts, O, I] times [I]."""
    layer = wrapper
    while type(layer).__name__ == "ParamWrapper":
        tensor_name = f"{name}.{layer.parameter_name}"
        weight = layer.get_param().detach().float()
        for slot in layer.active_adapters:
            weight = weight + layer.get_delta_weight(slot).float()
        by = torch.randn(weight.shape[-1], generator=random)
        probes[f"by:{tensor_name}"], probes[f"out:{tensor_name}"] = by, (weight.cpu() @ by).contiguous()
        rounding[tensor_name] = _rounding(weight, dtype_of(tensor_name))
        layer = layer.base_layer


def _rounding(weight: torch.Tensor, dtype: torch.dtype) -> float:
    moved = rounded_by_chance(weight, dtype, seed=1).double()
    return float((moved - weight.double()).norm() / weight.double().norm().clamp_min(1e-30))


def rounded_by_chance(weight: torch.Tensor, dtype: torch.dtype, *, seed: int) -> torch.Tensor:
    """One weight in twelve moved up or down by the distance of two neighbors in `dtype`, as far as rounding moves all.

    Rounding to the nearest of numbers that lie d apart leaves errors with the variance d^2 / 12, and so does this; a
    weight that `dtype` holds as it is moves, too, as the sum that is rounded in its place is another number.
    """
    random = torch.Generator(device=weight.device).manual_seed(seed)
    draw = torch.rand(weight.shape, generator=random, device=weight.device)
    steps = (draw < 1 / 24).to(torch.float32) - (draw > 23 / 24).to(torch.float32)
    _, exponent = torch.frexp(weight.float())
    distance = torch.ldexp(torch.ones_like(draw), exponent - BITS[dtype])
    return (weight.double() + (steps * distance).double()).to(weight.dtype if dtype == torch.float32 else dtype)
