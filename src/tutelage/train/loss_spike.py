"""A loss that jumps: what counts as a spike, as the settings say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class SpikeGuard:
    """Compares a step's loss with the median of the `window` steps before it; until there are as many, nothing is one.

    A median, since one odd step should not move what the next is held against.
    """

    factor: float
    window: int

    def is_spike(self, loss: float, recent: Sequence[float]) -> bool:
        """Whether `loss` is finite and exceeds `factor` times the median of the `recent` losses, oldest first."""
        return math.isfinite(loss) and len(recent) >= self.window and loss > self.factor * median(recent)

    def remembered(self, loss: float, recent: Sequence[float]) -> tuple[float, ...]:
        """The losses that the next step is held against."""
        return (*recent, loss)[-self.window :]
