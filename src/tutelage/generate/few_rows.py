"""The products of a step that has few tokens, on a CPU in bf16.

oneDNN lays the second factor of a product out anew each time. As `x W^T` that is the weight, which for a few dozen
tokens costs as much as the product; as `W x^T` it is the tokens. One token alone is a vector, and torch has
code for it that reads the weight once, as it lies. Measured in docs/log.md, "Decoding with AMX" and "One reply alone".

Shape legend: T = tokens of a step, D = hidden width, F = feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tutelage.model.attention.isolation_check import equal_but_for_rounding

MOST_TOKENS = 128
"""With more tokens, laying the weights out is a small share of the product."""

TRIED_TOKENS = 5

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def few_row_units(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The parts of a model, on a CPU and in bf16, that can be computed so; each kind is tried.

    They are gated feed-forward parts of plain layers, and the plain layers outside of these.
    """
    fits: dict[Any, bool] = {}
    gated = [module for module in model.modules() if _is_plain_gated(module)]
    for unit in gated:
        if _kind(unit) not in fits:
            fits[_kind(unit)] = _same(unit)
    units = [unit for unit in gated if fits[_kind(unit)]]
    inside = {id(module) for unit in units for module in unit.modules()}
    return units + [module for module in model.modules() if _is_plain(module) and id(module) not in inside]


def vector_product(weight_OD: torch.Tensor, hidden_D: torch.Tensor) -> torch.Tensor:
    """[O]: what a layer without a bias makes of one token."""
    return torch.mv(weight_OD, hidden_D)


@contextmanager
def few_rows(units: Sequence[torch.nn.Module]) -> Iterator[None]:
    """In the block these parts compute steps of few tokens by the transposed products."""
    try:
        for unit in units:
            unit.__dict__["forward"] = _forward_of(unit)
        yield
    finally:
        for unit in units:
            unit.__dict__.pop("forward", None)


def _forward_of(unit: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    plain = type(unit).forward

    def layer_forward(hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = unit.weight, unit.bias
        if hidden.numel() != hidden.shape[-1]:
            return torch.nn.functional.linear(hidden, weight, bias)
        token_O = vector_product(weight, hidden.reshape(-1))
        return (token_O if bias is None else token_O + bias).view(*hidden.shape[:-1], -1)

    if type(unit) is torch.nn.Linear:
        return layer_forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        tokens = hidden.numel() // hidden.shape[-1]
        if tokens > MOST_TOKENS:
            whole: torch.Tensor = plain(unit, hidden)
            return whole
        if tokens == 1:
            gate_F = unit.act_fn(vector_product(unit.gate_proj.weight, hidden.reshape(-1)))
            gate_F.mul_(vector_product(unit.up_proj.weight, hidden.reshape(-1)))
            return vector_product(unit.down_proj.weight, gate_F).view(hidden.shape)
        hidden_DT = hidden.reshape(tokens, -1).t()
        gate_FT = torch.mm(unit.gate_proj.weight, hidden_DT)
        up_FT = torch.mm(unit.up_proj.weight, hidden_DT)
        out_DT = torch.mm(unit.down_proj.weight, unit.act_fn(gate_FT).mul_(up_FT))
        return out_DT.t().reshape(hidden.shape)

    return forward


def _kind(unit: Any) -> Any:
    return type(unit), type(unit.act_fn), tuple(unit.gate_proj.weight.shape)


def _is_plain_gated(module: Any) -> bool:
    layers: list[Any] = [module._modules.get(name) for name in PROJECTIONS]
    if not callable(getattr(module, "act_fn", None)):
        return False
    return all(_is_plain(layer) and layer._parameters["bias"] is None for layer in layers)


def _is_plain(layer: Any) -> bool:
    if type(layer) is not torch.nn.Linear or "forward" in layer.__dict__ or "weight" not in layer._parameters:
        return False
    weight = layer._parameters["weight"]
    return weight is not None and weight.dtype == torch.bfloat16 and weight.device.type == "cpu"


@torch.inference_mode()
def _same(unit: Any) -> bool:
    """Whether the part computes nothing else than its three layers, its gate and their product."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, TRIED_TOKENS, unit.gate_proj.in_features, generator=generator).bfloat16()
    try:
        expected = type(unit).forward(unit, hidden)
    except (TypeError, RuntimeError, ValueError, AttributeError):
        return False
    if not isinstance(expected, torch.Tensor) or expected.shape != hidden.shape:
        return False
    forward = _forward_of(unit)
    together, alone = forward(hidden), forward(hidden[:, :1])
    return all(
        equal_but_for_rounding(output, expected[:, : output.shape[1]], torch.bfloat16) for output in (together, alone)
    )
