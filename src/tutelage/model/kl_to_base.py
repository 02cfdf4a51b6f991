"""How far the model has gone from its base where it is asked general things: the exact divergence, in chunks.

Shape legend: N = trained positions, D = hidden width, V = vocabulary, C = one chunk.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.logits_buffers import LogitsBuffers, cap_slope
from tutelage.model.output_head import Head


def kl_to_base_of(
    hidden_ND: torch.Tensor,
    base_ND: torch.Tensor,
    head: Head,
    weights_N: torch.Tensor,
    *,
    positions: int,
    base_head: Head | None = None,
) -> torch.Tensor:
    """Summed weighted KL(base || model) over the whole vocabulary, a scalar fp32 tensor that can be differentiated.

    Logits exist for one chunk at a time, those of the base beside those of the model. Source: the divergence from the
    model to start from as a penalty, Li and Hoiem 2017 (Learning without Forgetting), section 3, there at a higher
    temperature; that this divergence goes with what is forgotten, Shenfeld et al. 2025 (RL's Razor, arXiv 2509.04259).

    Args:
        hidden_ND: of the model, before the head.
        base_ND: the base's, on the same tokens; without gradient.
        head: of the model.
        weights_N: of the positions.
        positions: most of a chunk.
        base_head: of the base; None where it is the model's, which then does not learn.
    """
    assert base_head is not None or not head.weight_VD.requires_grad, "a head that learns is not that of the base"
    divergence: torch.Tensor = _Divergence.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
        hidden_ND, head.weight_VD, head.bias_V, base_ND, head, base_head or head, weights_N, positions
    )
    return divergence


class _Divergence(torch.autograd.Function):
    """The sum; forward also computes the gradients, chunk by chunk."""

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        base_ND: torch.Tensor,
        head: Head,
        base_head: Head,
        weights_N: torch.Tensor,
        positions: int,
    ) -> torch.Tensor:
        _, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_ND = torch.empty_like(hidden_ND)
        grad_VD = torch.zeros_like(weight_VD) if need_weight else None
        grad_V = torch.zeros_like(bias_V) if need_bias and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        buffers, base_buffers = (LogitsBuffers(hidden_ND, weight_VD, positions) for _ in range(2))
        for start in range(0, len(hidden_ND), positions):
            chunk = slice(start, start + positions)
            hidden_CD = hidden_ND[chunk]
            logits_CV = buffers.logits(head, hidden_CD, weight_VD)
            slope_CV = cap_slope(head, logits_CV)
            base_CV = base_buffers.logits(base_head, base_ND[chunk], base_head.weight_VD)
            divergence_C, gradient_CV = _divergence(logits_CV, base_CV)
            total += (divergence_C * weights_N[chunk]).sum()
            if slope_CV is not None:
                gradient_CV.mul_(slope_CV)
            scale_C1 = (weights_N[chunk] * head.scale)[:, None]
            if grad_V is not None:
                grad_V += (gradient_CV * scale_C1).sum(dim=0).to(grad_V.dtype)
            small_CV = buffers.narrowed(gradient_CV)
            torch.mm(small_CV, weight_VD, out=grad_ND[chunk]).mul_(scale_C1)
            if grad_VD is not None:
                grad_VD.addmm_(small_CV.T, (hidden_CD * scale_C1).to(hidden_CD.dtype))
        ctx.save_for_backward(grad_ND, grad_VD, grad_V)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = (
            None if gradient is None else gradient * upstream[0].to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        return *gradients, None, None, None, None, None


def _divergence(logits_CV: torch.Tensor, base_CV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(base || model) [C], and its gradient by the model's logits [C, V] in their place; spoils those of the base.

    Differences of logarithms are multiplied by the base's probabilities, which are 0 where it rules a token out.
    """
    # Written over their own input, whose rows the kernel has read by then; tests compare with kl_div.
    model_log_CV = torch.log_softmax(logits_CV, 1, out=logits_CV)
    base_log_CV = torch.log_softmax(base_CV, 1, out=base_CV)
    base_probabilities_CV = base_log_CV.exp()
    divergence_C = base_log_CV.sub_(model_log_CV).mul_(base_probabilities_CV).sum(dim=1)
    return divergence_C, model_log_CV.exp_().sub_(base_probabilities_CV)
