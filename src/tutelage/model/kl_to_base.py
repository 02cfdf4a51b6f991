"""How far the model has gone from its base where it is asked general things: the exact divergence, in chunks.

Shape legend: N = trained positions, D = hidden width, V = vocabulary, C = one chunk.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.logits_buffers import LogitsBuffers, cap_slope
from tutelage.model.output_head import Head


def kl_to_base_of(
    hidden_ND: torch.Tensor, base_ND: torch.Tensor, head: Head, weights_N: torch.Tensor, *, positions: int
) -> torch.Tensor:
    """Summed weighted KL(base || model) over the whole vocabulary, a scalar fp32 tensor that can be differentiated.

    Logits exist for one chunk at a time, those of the base beside those of the model. Source: the divergence from the
    model to start from as a penalty, Li and Hoiem 2017 (Learning without Forgetting), section 3, there at a higher
    temperature; that this divergence goes with what is forgotten, Shenfeld et al. 2025 (RL's Razor, arXiv 2509.04259).

    Args:
        hidden_ND: of the model, before the head.
        base_ND: the base's, on the same tokens; without gradient.
        head: of both; it does not learn.
        weights_N: of the positions.
        positions: most of a chunk.
    """
    assert not head.weight_VD.requires_grad, "one head is read for both, and stays that of the base"
    divergence: torch.Tensor = _Divergence.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
        hidden_ND, base_ND, head, weights_N, positions
    )
    return divergence


class _Divergence(torch.autograd.Function):
    """The sum; forward also computes the gradient by the hidden states, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, base_ND: torch.Tensor, head: Head, weights_N: torch.Tensor, positions: int
    ) -> torch.Tensor:
        grad_ND = torch.empty_like(hidden_ND)
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        buffers, base_buffers = (LogitsBuffers(hidden_ND, head.weight_VD, positions) for _ in range(2))
        for start in range(0, len(hidden_ND), positions):
            chunk = slice(start, start + positions)
            logits_CV = buffers.logits(head, hidden_ND[chunk], head.weight_VD)
            slope_CV = cap_slope(head, logits_CV)
            divergence_C, gradient_CV = _divergence(
                logits_CV, base_buffers.logits(head, base_ND[chunk], head.weight_VD)
            )
            total += (divergence_C * weights_N[chunk]).sum()
            if slope_CV is not None:
                gradient_CV.mul_(slope_CV)
            scale_C1 = (weights_N[chunk] * head.scale)[:, None]
            torch.mm(buffers.narrowed(gradient_CV), head.weight_VD, out=grad_ND[chunk]).mul_(scale_C1)
        ctx.save_for_backward(grad_ND)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_ND,) = ctx.saved_tensors
        return grad_ND * upstream[0].to(grad_ND.dtype), None, None, None, None


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
