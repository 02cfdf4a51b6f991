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
        number: its place among the sources.
        places: which examples, ascending.
        weight: above 0.
    """

    name: str
    number: int
    places: NDArray[np.integer[Any]]
    weight: float

    @property
    def epoch_visits(self) -> Fraction:
        """Visits in one epoch, on average; exact, as the decimal number that was written."""
        return Fraction(str(self.weight)) * len(self.places)

    def visits(self, seed: int, first: int, last: int) -> NDArray[np.integer[Any]]:
        """The examples of its visits `first` to `last - 1`, counted from the start of the run."""
        size, parts = len(self.places), []
        for number in range(first // size, -(-last // size)) if last > first else ():
            shuffled = np.random.default_rng([seed, number, self.number + 1]).permutation(self.places)
            parts.append(shuffled[max(0, first - number * size) : last - number * size])
        return np.concatenate(parts) if parts else self.places[:0]


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
        laid: parts of the run that were laid out for another length, as (steps, visits) at their ends, ascending: the
            step after such an end goes on at the visit after it.
    """

    examples: int
    batch_size: int
    epochs: float
    seed: int
    max_steps: int | None = None
    sources: tuple[Source, ...] = ()
    laid: tuple[tuple[int, int], ...] = ()

    @property
    def epoch_visits(self) -> float:
        """Examples seen in one epoch, repeats counted; on average, where weights make it a fraction."""
        return float(self._starts(1, rounded=False))

    @property
    def visits(self) -> int:
        """Examples seen in the whole run, repeats counted."""
        return max(1, round(self.epochs * self.epoch_visits))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        done, visited = self.laid[-1] if self.laid else (0, 0)
        steps = done + math.ceil(max(0, self.visits - visited) / self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def visits_after(self, steps: int) -> int:
        """Examples seen once so many steps are taken."""
        begin = (0, 0)
        for end in self.laid:
            if steps <= end[0]:
                return min(begin[1] + (steps - begin[0]) * self.batch_size, end[1])
            begin = end
        return min(begin[1] + (steps - begin[0]) * self.batch_size, max(begin[1], self.visits))

    def indices(self, start_step: int = 0) -> Iterator[tuple[int, float, list[int]]]:
        """Yield (step, epochs completed before it, example indices) from `start_step` on."""
        begin = end = 0
        visited: NDArray[np.integer[Any]] = np.empty(0, dtype=np.int64)
        for step in range(start_step, self.steps):
            first = self.visits_after(step)
            chosen: list[int] = []
            for visit in range(first, self.visits_after(step + 1)):
                if not begin <= visit < end:
                    epoch = self._epoch_of(visit)
                    begin, end = int(self._starts(epoch)), int(self._starts(epoch + 1))
                    visited = self._epoch(epoch)
                chosen.append(int(visited[visit - begin]))
            yield step, first / self.epoch_visits, chosen

    def _starts(self, epoch: int, *, rounded: bool = True) -> Fraction | int:
        """Visits before `epoch`: whole ones, or on average."""
        if not self.sources:
            return epoch * self.examples
        visits = [epoch * source.epoch_visits for source in self.sources]
        return sum(math.floor(visit) for visit in visits) if rounded else sum(visits, start=Fraction(0))

    def _epoch_of(self, visit: int) -> int:
        epoch = int(visit // Fraction(self._starts(1, rounded=False)))
        while self._starts(epoch + 1) <= visit:  # rounding down moves the start of an epoch by a few visits at most
            epoch += 1
        return epoch

    def _epoch(self, epoch: int) -> NDArray[np.integer[Any]]:
        """The examples of one epoch in the order of their visits."""
        shuffle = np.random.default_rng([self.seed, epoch])
        if not self.sources:
            return shuffle.permutation(self.examples)
        parts = [
            source.visits(
                self.seed, math.floor(epoch * source.epoch_visits), math.floor((epoch + 1) * source.epoch_visits)
            )
            for source in self.sources
        ]
        visited = np.sort(np.concatenate(parts))
        return visited[shuffle.permutation(len(visited))]
