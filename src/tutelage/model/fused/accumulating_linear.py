"""Linear layers that add the gradient of their weight to what is there in the product itself.

Autograd writes each row's gradient of a weight and then adds it to the sum: three passes over memory as large as the
weights, for every row. A matrix product can add to what it finds. Only for weights that are their own masters (fp32,
one process): elsewhere the gradient goes somewhere else as soon as it is made.

Shape legend: R = tokens, I = inputs and O = outputs of a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from tutelage.model.layers import decoder_of


class AccumulatingLinear(torch.nn.Linear):
    """A linear layer; see this file's first line."""

    @classmethod
    def from_layer(cls, layer: torch.nn.Linear) -> AccumulatingLinear:
        """The same layer, with all it holds; `layer` is to be forgotten."""
        adding = cls.__new__(cls)
        adding.__dict__ = layer.__dict__
        return adding

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 torch's name for it
        """`input` [..., I] to [..., O]."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        out: torch.Tensor = _AccumulatingMatmul.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call] # torch states no types of it
        return out


def accumulate_gradients_in_place(model: Any) -> int:
    """Replace the linear layers of the decoder whose weights learn; return how many. Names and numbers stay.

    Args:
        model: a causal language model of transformers; its output head stays, as the loss does not go through it.
    """
    replaced = 0
    for parent in list(decoder_of(model).modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child.weight.requires_grad:
                setattr(parent, name, AccumulatingLinear.from_layer(child))
                replaced += 1
    return replaced


class _AccumulatingMatmul(torch.autograd.Function):
    """`x W^T + b`; the gradient of W goes into `W.grad` if there is one, else to autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.weight_OI = weight_OI
        return linear(x, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        weight_OI, gradient_RO = ctx.weight_OI, upstream[0].flatten(0, -2)
        x_gradient = (gradient_RO @ weight_OI).view(x.shape) if ctx.needs_input_grad[0] else None
        weight_gradient, x_RI = None, x.flatten(0, -2)
        if weight_OI.grad is None:
            weight_gradient = gradient_RO.T @ x_RI
        else:
            weight_OI.grad.addmm_(gradient_RO.T, x_RI)
        bias_gradient = gradient_RO.sum(0) if ctx.needs_input_grad[2] else None
        return x_gradient, weight_gradient, bias_gradient
