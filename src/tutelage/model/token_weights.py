"""Weights of single tokens in the gradient, by what the model itself predicts there: DFT, TALR and EAFT.

A weight multiplies a token's share of the gradient, never the loss that is reported, which stays the cross-entropy. It
depends on the token's own logits, and in TALR on one number of the step before: so on neither packing nor processes.

Shape legend: V = vocabulary, C = one chunk of trained positions, K = tokens that EAFT looks at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

TrainingLoss = Literal["cross_entropy", "dft", "talr", "eaft"]

TOP_TOKENS = 20
"""K of EAFT. Source: Diao et al. 2026 (arXiv 2601.02151), section 3.3."""
SMALLEST_WEIGHT = 0.01
"""Below this no weight of TALR falls. That there is such a bound is Lin et al. 2025 (arXiv 2509.20758) by an account of
the paper; its value is that of another implementation, and was not confirmed in the paper."""
FIRST_TEMPERATURE = 1.0
"""TALR's in the first step, before which there is no loss. Our choice: the rate has hardly begun to climb by then."""
LEAST_TEMPERATURE = 1e-6


class WeighsTokens(Protocol):
    """Is handed what the model predicts at every trained token, and says how much the token counts in the gradient."""

    def of(self, loss_C: torch.Tensor, probabilities_CV: torch.Tensor) -> torch.Tensor:
        """The weight of each token of the next chunk, [C], in fp32; see `TokenWeights.of`."""


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """How the tokens of one step are weighted; without gradient (detached) and in fp32.

    With p the probability of the token that is trained:

    - "dft": p. Source: Wu et al. 2025 (Dynamic Fine-Tuning, arXiv 2508.05629): the loss of each token times its own
      probability, detached.
    - "talr": max(p ** (1 / temperature), `SMALLEST_WEIGHT`). Source: Lin et al. 2025 (token-adaptive loss reweighting,
      arXiv 2509.20758). There the weights solve min sum w l + T sum w log w and are proportional to p ** (1 / T), T
      being the median over a batch's sequences of their mean loss. Two things differ here, as neither may depend on
      how a batch is packed: the weights are not normalized to a sum, and T is the mean loss of the step before.
      Read in accounts of the paper and another implementation, not in the paper itself.
    - "eaft": H / ln K, H the entropy of the K likeliest tokens, their probabilities divided by their sum. Source: Diao
      et al. 2026 (entropy-adaptive fine-tuning, arXiv 2601.02151), equations 2 and 3. Their code divides by 3.0, which
      is ln 20 to a thousandth, and has an exponent whose default is 1.

    Attributes:
        kind: which of them.
        temperature: of "talr", above 0.
    """

    kind: Literal["dft", "talr", "eaft"]
    temperature: float = FIRST_TEMPERATURE

    @torch.no_grad()
    def of(self, loss_C: torch.Tensor, probabilities_CV: torch.Tensor) -> torch.Tensor:
        """The weight of each token, [C], in fp32.

        Args:
            loss_C: cross-entropy of the token that is trained.
            probabilities_CV: of all tokens, in fp32; read by "eaft" alone.
        """
        if self.kind == "eaft":
            return _entropy_share(probabilities_CV)
        if self.kind == "dft":
            return torch.exp(-loss_C.float())
        return torch.exp(-loss_C.float() / max(self.temperature, LEAST_TEMPERATURE)).clamp_(min=SMALLEST_WEIGHT)


def token_weights_of(training_loss: TrainingLoss, recent_losses: Sequence[float]) -> TokenWeights | None:
    """How a step weights its tokens; None where each counts as its row says.

    Args:
        training_loss: as `train.loss` names it.
        recent_losses: mean cross-entropy of the steps before, the last one last; empty before the first.
    """
    if training_loss == "cross_entropy":
        return None
    return TokenWeights(training_loss, recent_losses[-1] if recent_losses else FIRST_TEMPERATURE)


def _entropy_share(probabilities_CV: torch.Tensor) -> torch.Tensor:
    """Entropy of the likeliest tokens, as a share of the largest that as many can have."""
    count = min(TOP_TOKENS, probabilities_CV.shape[1])
    top_CK: torch.Tensor = probabilities_CV.topk(count, dim=1, sorted=False).values
    top_CK /= top_CK.sum(dim=1, keepdim=True)
    entropy_C: torch.Tensor = torch.special.entr(top_CK).sum(dim=1)
    return entropy_C / math.log(count)
