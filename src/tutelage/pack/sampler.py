"""The order of examples as a pure function of (seed, step): a resume needs to remember one number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Examples that are visited `weight` times an epoch; a weight of 0.5 takes half of them, the others an epoch later.

    Its visits are permutations of its examples, drawn from (seed, pass, `number`) and laid end to end; epoch e takes
    those from floor(e w n) to floor((e + 1) w n), for n examples and a weight of w. So no example is ever more than one
    visit ahead of another of its source, and after E epochs each has been visited E w times, rounded down or up.

    Args:
        name: for people.
        number: its index among the sources.
        indices: which examples, ascending.
        weight: above 0; a fraction where no decimal number is exact.
        replayed: they are not of the task.
    """

    name: str
    number: int
    indices: NDArray[np.integer[Any]]
    weight: float | Fraction
    replayed: bool = False

    @property
    def epoch_visits(self) -> Fraction:
        """Visits in one epoch, on average; exact, as the decimal number that was written."""
        weight = self.weight if isinstance(self.weight, Fraction) else Fraction(str(self.weight))
        return weight * len(self.indices)

    def visits(self, seed: int, first: int, last: int) -> NDArray[np.integer[Any]]:
        """The examples of its visits `first` to `last - 1`, counted from the start of the run."""
        example_count, passes = len(self.indices), []
        for pass_number in range(first // example_count, -(-last // example_count)) if last > first else ():
            shuffled = np.random.default_rng([seed, pass_number, self.number + 1]).permutation(self.indices)
            passes.append(shuffled[max(0, first - pass_number * example_count) : last - pass_number * example_count])
        return np.concatenate(passes) if passes else self.indices[:0]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Which examples each optimizer step sees.

    Epoch e visits the examples in a permutation drawn from (seed, e); the epochs are laid end to end and cut into
    steps of `batch_size`. Only the last step may be smaller.

    Args:
        examples: how many there are; at least 1.
        batch_size: examples an optimizer step averages over (the effective batch).
        epochs: passes over the data; fractions are allowed.
        seed: fixes every permutation.
        max_steps: an upper bound on steps; None for none.
        sources: parts of the examples that are visited more or less often, together all of them; empty where every
            example is visited once an epoch, which sources of weight 1 give as well, bit for bit.
        part_ends: ends, as (steps, visits), of the parts of the run that were planned for another length, ascending:
            the step after such an end goes on at the visit after it.
    """

    examples: int
    batch_size: int
    epochs: float
    seed: int
    max_steps: int | None = None
    sources: tuple[Source, ...] = ()
    part_ends: tuple[tuple[int, int], ...] = ()

    @property
    def epoch_visits(self) -> float:
        """Examples seen in one epoch, repeats counted; on average, where weights make it a fraction."""
        return float(self._visits_before_epoch(1, rounded=False))

    @property
    def visits(self) -> int:
        """Examples seen in the whole run, repeats counted."""
        return max(1, round(self.epochs * self.epoch_visits))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        done, visited = self.part_ends[-1] if self.part_ends else (0, 0)
        steps = done + math.ceil(max(0, self.visits - visited) / self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def visits_after(self, steps: int) -> int:
        """Examples seen once so many steps are taken."""
        previous_end = (0, 0)
        for end in self.part_ends:
            if steps <= end[0]:
                return min(previous_end[1] + (steps - previous_end[0]) * self.batch_size, end[1])
            previous_end = end
        return min(previous_end[1] + (steps - previous_end[0]) * self.batch_size, max(previous_end[1], self.visits))

    def indices(self, start_step: int = 0) -> Iterator[tuple[int, float, list[int]]]:
        """Yield (step, epochs completed before it, example indices) from `start_step` on."""
        epoch_start = epoch_end = 0
        epoch_indices: NDArray[np.integer[Any]] = np.empty(0, dtype=np.int64)
        for step in range(start_step, self.steps):
            first_visit = self.visits_after(step)
            batch_indices: list[int] = []
            for visit in range(first_visit, self.visits_after(step + 1)):
                if not epoch_start <= visit < epoch_end:
                    epoch = self._epoch_of_visit(visit)
                    epoch_start, epoch_end = (
                        int(self._visits_before_epoch(epoch)),
                        int(self._visits_before_epoch(epoch + 1)),
                    )
                    epoch_indices = self._epoch_order(epoch)
                batch_indices.append(int(epoch_indices[visit - epoch_start]))
            yield step, first_visit / self.epoch_visits, batch_indices

    def _visits_before_epoch(self, epoch: int, *, rounded: bool = True) -> Fraction | int:
        """Visits before `epoch`: whole ones, or on average."""
        if not self.sources:
            return epoch * self.examples
        visits = [epoch * source.epoch_visits for source in self.sources]
        return sum(math.floor(visit) for visit in visits) if rounded else sum(visits, start=Fraction(0))

    def _epoch_of_visit(self, visit: int) -> int:
        epoch = int(visit // Fraction(self._visits_before_epoch(1, rounded=False)))
        while (
            self._visits_before_epoch(epoch + 1) <= visit
        ):  # rounding down moves the start of an epoch by a few visits at most
            epoch += 1
        return epoch

    def _epoch_order(self, epoch: int) -> NDArray[np.integer[Any]]:
        """The examples of one epoch in the order of their visits."""
        shuffle = np.random.default_rng([self.seed, epoch])
        if not self.sources:
            return shuffle.permutation(self.examples)
        visits_by_source = [
            source.visits(
                self.seed, math.floor(epoch * source.epoch_visits), math.floor((epoch + 1) * source.epoch_visits)
            )
            for source in self.sources
        ]
        visited = np.sort(np.concatenate(visits_by_source))
        return visited[shuffle.permutation(len(visited))]
