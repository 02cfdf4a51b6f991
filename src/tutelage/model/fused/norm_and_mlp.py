"""Norms and feed-forward parts that keep less for the backward pass: what is cheap to compute again is.

Of a Llama layer autograd keeps 20 numbers for each hidden unit of a token; with these and `packed` it keeps
12. What they compute is what the model's own modules compute, bit for bit: each kind is tried on random numbers first,
and stays as it is where a bit differs.

Shape legend: R = tokens of a packed row, D = hidden width, F = feed-forward width.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

TRIED_SHAPE = (1, 5)
"""Rows and tokens of the numbers that a kind of module is tried on."""


def reduce_saved_activations(model: torch.nn.Module, *, recomputed: bool = False) -> int:
    """Replace what is known to keep more than it must; return how many modules were replaced.

    Parameters keep their names. Call this after adapters were added, and before the model is sharded.

    Args:
        model: a causal language model of transformers, with or without PEFT around it.
        recomputed: whole layers are computed again in the backward pass, so only norms are worth it.
    """
    replacements: dict[Any, Callable[[Any], torch.nn.Module] | None] = {}
    replaced = 0
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for parent in reversed(list(model.modules())):  # what is inside of a module that goes, first
            for name, child in list(parent.named_children()):
                kind = (type(child), *_shapes(child))
                if kind not in replacements:
                    replacements[kind] = _lean(child, recomputed=recomputed)
                if (make := replacements[kind]) is not None:
                    setattr(parent, name, make(child))
                    replaced += 1
    return replaced


def _shapes(module: torch.nn.Module) -> tuple[Any, ...]:
    """What tells modules of one class apart, as far as it matters here."""
    shapes = tuple(tuple(parameter.shape) for parameter in module.parameters(recurse=False))
    return shapes + tuple(type(child).__name__ for child in module.children()) if _is_gated(module) else shapes


def _lean(module: Any, *, recomputed: bool) -> Callable[[Any], torch.nn.Module] | None:
    """How to replace modules like this one; None leaves them."""
    if _is_lora(module):
        from tutelage.model.fused.lora_linear import FusedLoraLinear

        return FusedLoraLinear.from_layer
    if _is_gated(module):
        return RecomputingGatedMLP if not recomputed and _same_gated(module) else None
    if type(module).__name__.endswith("RMSNorm") and isinstance(getattr(module, "weight", None), torch.nn.Parameter):
        for makes in (RecomputingNorm, _offset_norm):
            if _epsilon(module) is not None and _same_norm(module, makes):
                return makes
    return None


def _offset_norm(norm: Any) -> RecomputingNorm:
    return RecomputingNorm(norm, offset=True)


def _epsilon(norm: Any) -> float | None:
    epsilons = [
        getattr(norm, name) for name in ("variance_epsilon", "eps") if isinstance(getattr(norm, name, None), float)
    ]
    return epsilons[0] if epsilons else None


class RecomputingNorm(torch.nn.Module):
    """Root mean square norm that keeps its input and one number a token.

    Source: Zhang and Sennrich 2019 (Root Mean Square Layer Normalization), section 3; with the roundings of
    transformers' Llama (`offset=False`) or Gemma (`offset=True`: the weight is what is added to 1, in fp32).
    """

    def __init__(self, norm: Any, *, offset: bool = False) -> None:
        super().__init__()
        self.weight = norm.weight
        self.epsilon = _epsilon(norm)
        self.offset = offset
        self.training = norm.training

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` [..., D], normed; the same shape and dtype."""
        normed: torch.Tensor = _Norm.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            hidden, self.weight, self.epsilon, self.offset
        )
        return normed

    def extra_repr(self) -> str:
        """For people."""
        return f"{self.weight.shape[0]}, epsilon={self.epsilon}, offset={self.offset}"


class _Norm(torch.autograd.Function):
    """Forward as transformers rounds it; backward in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight_D: torch.Tensor, epsilon: float, offset: bool) -> torch.Tensor:
        wide = hidden.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight_D, scale)
        ctx.offset = offset
        normed = wide * scale
        if offset:
            return normed.mul_(1.0 + weight_D.float()).type_as(hidden)
        normed = normed.to(hidden.dtype)
        return normed.mul_(weight_D) if weight_D.dtype == normed.dtype else weight_D * normed

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight_D, scale = ctx.saved_tensors
        gradient, normed = upstream[0].float(), hidden.float() * scale  # in fp32 both are others' own tensors
        weight_gradient = hidden_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = (gradient * normed).flatten(0, -2).sum(0).to(weight_D.dtype)
        if ctx.needs_input_grad[0]:
            factor_D = weight_D.float() + 1.0 if ctx.offset else weight_D.float()
            towards = gradient * factor_D
            along = torch.linalg.vecdot(towards, normed).div_(len(factor_D)).unsqueeze(-1)
            hidden_gradient = towards.addcmul_(normed, along, value=-1).mul_(scale).to(hidden.dtype)
        return hidden_gradient, weight_gradient, None, None


class RecomputingGatedMLP(torch.nn.Module):
    """A gated feed-forward part, `down(act(gate(x)) * up(x))`, that keeps the outputs of `gate` and `up` alone.

    Source: Shazeer 2020 (GLU Variants Improve Transformer), section 2.
    """

    def __init__(self, unit: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = unit.gate_proj, unit.up_proj, unit.down_proj
        self.act_fn = unit.act_fn
        self.training = unit.training

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` [..., D] to [..., D]."""
        gate, up, acted = self.gate_proj(hidden), self.up_proj(hidden), _Acted(self.act_fn)
        product: torch.Tensor = _Gated.apply(gate, up, acted)  # type: ignore[no-untyped-call] # torch states no types of it
        if not product.requires_grad:
            return self._down(product)
        gate, up, memory = gate.detach(), up.detach(), _memory(product)

        # What `down_proj`, plain or adapted, wants to keep of its input is computed again when it asks. Autograd holds
        # on to both functions, so neither may know the product itself.
        def pack(saved: torch.Tensor) -> torch.Tensor | torch.Size:
            return saved.shape if _memory(saved) == memory and saved.is_contiguous() else saved

        def unpack(saved: torch.Tensor | torch.Size) -> torch.Tensor:
            return saved if isinstance(saved, torch.Tensor) else (acted.of(gate).detach() * up).view(saved)

        with saved_tensors_hooks(pack, unpack):
            return self._down(product)

    def _down(self, product: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(product)
        return out


class _Acted:
    """An activation that the backward pass asks for twice, for the layer above and for its own gradient."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.act = act
        self.gate: torch.Tensor | None = None
        self.activated: torch.Tensor | None = None

    def of(self, gate: torch.Tensor) -> torch.Tensor:
        """`act(gate)`, with its graph; kept until the gradient is taken."""
        with torch.enable_grad():
            self.gate = gate.detach().requires_grad_()
            self.activated = self.act(self.gate)
        return self.activated

    def gradients(
        self, gate: torch.Tensor, up: torch.Tensor, upstream: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of `act(gate) * up`, by both."""
        activated = self.of(gate) if self.activated is None else self.activated
        assert self.gate is not None, "made from it"
        (by_gate,) = torch.autograd.grad(activated, self.gate, upstream * up)
        by_up = upstream * activated.detach()
        self.gate = self.activated = None
        return by_gate, by_up


class _Gated(torch.autograd.Function):
    """`act(gate) * up`, keeping both and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, acted: _Acted) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.acted = acted
        activated = acted.act(gate)
        return activated * up if _memory(activated) == _memory(gate) else activated.mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return (*ctx.acted.gradients(gate, up, upstream[0]), None)


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    """What two tensors share that are the same numbers in the same place, perhaps in another shape."""
    return tensor.untyped_storage()._cdata, tensor.numel()


def _is_lora(module: Any) -> bool:
    """Whether this is PEFT's adapted linear layer and no subclass; nothing has to be tried, see `FusedLoraLinear`."""
    lora = sys.modules.get("peft.tuners.lora")
    return lora is not None and type(module) is lora.Linear


def _is_gated(module: Any) -> bool:
    projections = ("gate_proj", "up_proj", "down_proj")
    children = dict(module.named_children())
    return all(name in children for name in projections) and callable(getattr(module, "act_fn", None))


@torch.no_grad()
def _same_gated(unit: Any) -> bool:
    """Whether the class does with small layers what `RecomputingGatedMLP` does, while it trains and they do not."""
    small = {name: torch.nn.Linear(6, 6) for name in ("gate_proj", "up_proj", "down_proj")}
    tried = copy.copy(unit)
    tried._modules = unit._modules | small
    tried.training = True
    hidden = torch.randn(*TRIED_SHAPE, 6)
    return _equal(tried, RecomputingGatedMLP(tried), hidden)


@torch.no_grad()
def _same_norm(norm: Any, makes: Callable[[Any], torch.nn.Module]) -> bool:
    """Whether both round alike, in fp32 and in bf16, with weights that are no special case."""
    for dtype in (torch.float32, torch.bfloat16):
        tried = copy.copy(norm)
        tried._parameters = {"weight": torch.nn.Parameter(torch.rand(norm.weight.shape).to(dtype) + 0.25)}
        if len(norm._parameters) != 1 or not _equal(
            tried, makes(tried), 3 * torch.randn(*TRIED_SHAPE, *norm.weight.shape).to(dtype)
        ):
            return False
    return True


def _equal(module: Any, lean: torch.nn.Module, hidden: torch.Tensor) -> bool:
    """Whether both give the same bits; a module that does not take one tensor gives none."""
    try:
        return torch.equal(module(hidden.clone()), lean(hidden.clone()))
    except (TypeError, RuntimeError, ValueError, AttributeError):
        return False
