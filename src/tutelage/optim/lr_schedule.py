"""Learning rate as a function of the step: linear warm-up, then cosine, linear or constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LRSchedule:
    """Learning rates of a run of `steps` steps.

    The first step already learns (rate peak / warmup). The fall ends after the last step, which learns as well: of n
    steps after the warm-up, the k-th from 0 is at the fraction k / n of it; `min_lr_ratio * peak` would be step n.
    Source: `get_scheduler` of transformers, with a warm-up that is one step ahead; for cosine SGDR, Loshchilov and
    Hutter 2017, eq. 5, without restarts.

    `earlier` are schedules of other lengths with the step, counted from 0, until which each holds (`train.extension`);
    `ends` are the numbers of steps after which a length was at its end.
    """

    kind: Literal["cosine", "linear", "constant"]
    peak: float
    steps: int
    warmup_steps: int
    min_lr_ratio: float = 0.0
    earlier: tuple[tuple[int, LRSchedule], ...] = ()
    ends: frozenset[int] = frozenset()

    def is_end(self, steps_done: int) -> bool:
        """Whether the run, or what it was to be until it was given more, is at its end."""
        return steps_done == self.steps or steps_done in self.ends

    def was_extended_at(self, steps_done: int) -> bool:
        """Whether the run was extended at this step: the patience of early stopping is counted anew."""
        return any(steps_done == until for until, _ in self.earlier)

    def rate(self, step: int) -> float:
        """The rate at `step`, counted from 0."""
        for until, schedule in self.earlier:
            if step < until:
                return schedule.rate(step)
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        decay_steps = self.steps - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, decay_steps))
        decay = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1.0 - progress
        return self.peak * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * decay)


def warmup_steps(*, steps: int, share: float, exact: int | None) -> int:
    """Warm-up steps of a run: the exact number if given, else `share` of all steps, rounded up."""
    return min(steps, exact if exact is not None else math.ceil(share * steps))
