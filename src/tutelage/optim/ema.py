"""Exponential moving average of the master weights, in fp32, evaluated and saved where a run asks for it.

Source: Polyak and Juditsky 1992 (averaged iterates); the exponential form, Tarvainen and Valpola 2017, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

UPDATES = "updates"


class WeightAverage:
    """Follows the master weights: average <- d average + (1 - d) master, after every step.

    Over the first steps d is less, (1 + n) / (10 + n) after n of them, as an average that began with the untrained
    weights would else remember little but those in a short run. Source: TensorFlow's `ExponentialMovingAverage`.

    Args:
        masters: master weights by name; copied.
        decay: d in the long run.
    """

    def __init__(self, masters: Mapping[str, torch.Tensor], *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: master.detach().clone() for name, master in masters.items()}

    @torch.no_grad()
    def follow(self, masters: Mapping[str, torch.Tensor]) -> None:
        """Update the average with the master weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [masters[name].detach() for name in self.weights]
        get_ema_multi_avg_fn(decay)(list(self.weights.values()), current, self.updates)
        self.updates += 1

    def state(self) -> dict[str, torch.Tensor]:
        """The average by parameter name, and how often it was updated, ready for safetensors."""
        return {**self.weights, UPDATES: torch.tensor(self.updates)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave, of the same parameters."""
        for name, average in self.weights.items():
            average.copy_(state[name])
        self.updates = int(state[UPDATES])
