"""The order of examples as a pure function of (seed, step): a resume needs to remember one number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Order:
    """Which examples each optimizer step sees.

    Epoch e visits the examples in a permutation drawn from (seed, e); the epochs are laid end to end and cut into
    steps of `batch_examples`. Only the last step may be smaller.

    Args:
        examples: how many there are; at least 1.
        batch_examples: examples an optimizer step averages over (the effective batch).
        epochs: passes over the data; fractions are allowed.
        seed: fixes every permutation.
        max_steps: an upper bound on steps; None for none.
    """

    examples: int
    batch_examples: int
    epochs: float
    seed: int
    max_steps: int | None = None

    @property
    def visits(self) -> int:
        """Examples seen in the whole run, repeats counted."""
        return max(1, round(self.epochs * self.examples))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = math.ceil(self.visits / self.batch_examples)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def indices(self, start_step: int = 0) -> Iterator[tuple[int, float, list[int]]]:
        """Yield (step, epochs completed before it, example indices) from `start_step` on."""
        epoch, permutation = -1, np.empty(0, dtype=np.int64)
        for step in range(start_step, self.steps):
            first = step * self.batch_examples
            chosen = []
            for visit in range(first, min(first + self.batch_examples, self.visits)):
                if visit // self.examples != epoch:
                    epoch = visit // self.examples
                    permutation = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
                chosen.append(int(permutation[visit % self.examples]))
            yield step, first / self.examples, chosen
