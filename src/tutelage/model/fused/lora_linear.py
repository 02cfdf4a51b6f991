"""A linear layer with its LoRA pair in one function: the pair's output is added where the layer's lies already.

PEFT's own forward writes the pair's output, scales it into another tensor and adds both into a third; its backward pass
adds the inputs' gradients of layer and pair in a pass of their own.

Shape legend: R = tokens, I = inputs and O = outputs of the layer, K = rank.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear


class FusedLoraLinear(Linear):  # type: ignore[misc] # PEFT is not typed
    """PEFT's LoRA layer, which it stays for PEFT; plain training takes the shorter way, everything else PEFT's own."""

    @classmethod
    def from_layer(cls, layer: Any) -> FusedLoraLinear:
        """The same layer, with all it holds; `layer` is to be forgotten."""
        lean = cls.__new__(cls)
        lean.__dict__ = layer.__dict__
        return lean

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`x` [..., I] to [..., O]."""
        name = None if args or kwargs else self._plain_pair(x)
        if name is None:
            out: torch.Tensor = super().forward(x, *args, **kwargs)
            return out
        base, scaling = self.get_base_layer(), self.scaling[name]
        pair = self.lora_A[name].weight, self.lora_B[name].weight
        both: torch.Tensor = _WithPair.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
            x, base.weight, base.bias, *pair, scaling
        )
        return both

    def _plain_pair(self, x: torch.Tensor) -> str | None:
        """The one adapter at work, if there is nothing to it but two matrices in the precision of `x`; else None."""
        if not torch.is_grad_enabled():  # what is measured is rounded as it will be when the adapter is opened again
            return None
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        (name,) = self.active_adapters
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name]:
            return None
        if self.training and not isinstance(self.lora_dropout[name], torch.nn.Identity):
            return None
        base, first = self.get_base_layer(), self.lora_A[name].weight
        plain = type(base) is torch.nn.Linear and not base.weight.requires_grad and x.dtype == first.dtype
        return name if plain and x.dtype == base.weight.dtype and not torch.is_autocast_enabled() else None


class _WithPair(torch.autograd.Function):
    """`x W^T + b + s (x A^T) B^T`; the frozen weight gets no gradient. Source: Hu et al. 2021 (LoRA), equation 3."""

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        x: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        first_KI: torch.Tensor,
        second_OK: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        x_RI = x.flatten(0, -2)
        out_RO, inner_RK = linear(x_RI, weight_OI, bias_O), x_RI @ first_KI.T
        out_RO.addmm_(inner_RK, second_OK.T, alpha=scaling)
        ctx.save_for_backward(x, weight_OI, first_KI, second_OK, inner_RK)
        ctx.scaling = scaling
        return out_RO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight_OI, first_KI, second_OK, inner_RK = ctx.saved_tensors
        gradient_RO = upstream[0].flatten(0, -2)
        inner_gradient_RK = (gradient_RO @ second_OK).mul_(ctx.scaling)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (gradient_RO @ weight_OI).addmm_(inner_gradient_RK, first_KI).view(x.shape)
        first = second = None
        if ctx.needs_input_grad[3]:
            first = inner_gradient_RK.T @ x.flatten(0, -2)
        if ctx.needs_input_grad[4]:
            # Summed over tokens as [K, O]: as [O, K] it takes twice as long.
            second = (inner_RK.T @ gradient_RO).mul_(ctx.scaling).T
        return x_gradient, None, None, first, second, None
