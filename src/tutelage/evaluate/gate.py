"""A gate for forgetting: whether the general set fell by more than a limit, and whether the items bear that out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.errors import ConfigError
from tutelage.runs.uncertainty import Uncertainty

GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Gate:
    """What was lost of the general set, as shares of its items; negative where it gained.

    Attributes:
        limit: what may be lost.
        lost: what was.
        least: the least that these items leave possible, at the level of their interval.
        most: the most.
        level: of that interval.
    """

    limit: float
    lost: float
    least: float
    most: float
    level: float

    @property
    def tripped_by(self) -> Literal["point", "bound"] | None:
        """`bound`: even the least is above the limit; `point`: what was measured is, and chance is not ruled out."""
        if self.lost <= self.limit:
            return None
        return "bound" if self.least > self.limit else "point"

    @property
    def sentence(self) -> str:
        """For people."""
        measured = f"the general set lost {_points(self.lost)} (limit {_points(self.limit)}); "
        interval = f"{self.level:.0%} interval {_points(self.least)} to {_points(self.most)}"
        if self.tripped_by == "bound":
            return f"Forgot too much: {measured}all of the {interval}, lies above the limit"
        if self.tripped_by == "point":
            return f"Forgot too much: {measured}the point is above the limit, its {interval}, is not all"
        if self.most > self.limit:
            return f"Within the limit: {measured}the {interval}, does not rule out more than the limit"
        return f"Within the limit: {measured}so is all of the {interval}"


def forgetting_gate(uncertainty: Uncertainty | None, limit: float) -> Gate:
    """Hold the change of the general set against a limit.

    Args:
        uncertainty: of a run; None where its result has none.
        limit: of what may be lost, from 0 to 1.

    Raises:
        ConfigError: the general set was not measured before and after on the same items.
    """
    share = None if uncertainty is None else uncertainty.shares.get(GENERAL)
    if uncertainty is None or share is None or share.change is None:
        raise ConfigError(
            "Nothing tells how much was forgotten",
            where="--fail-if-forgets",
            expected="a general set that was measured before and after training",
            fix="set evaluate.general, and leave evaluate.before = true",
        )
    change = share.change
    return Gate(
        limit=limit,
        lost=(change.broken - change.fixed) / share.items,
        least=-change.range.high,
        most=-change.range.low,
        level=uncertainty.level,
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
