"""The intervals, tests and verdicts of a run's shares, as `result.json` holds them under `uncertainty`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.runs.fields import Fields

VERDICTS = ("gained", "lost", "kept", "not shown")


@dataclass(frozen=True, slots=True)
class Range:
    """An interval; both ends belong to it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ShareChange:
    """After minus before on the same items, see `evaluate.statistics.PairedChange`."""

    range: Range
    fixed: int
    broken: int
    p_value: float
    adjusted_p: float
    verdict: str
    smallest_detectable: float | None
    """None where no change of so few items could be shown."""


@dataclass(frozen=True, slots=True)
class ShareUncertainty:
    """Of one share; None = that model was not measured, or not on the same items."""

    items: int
    before: Range | None = None
    after: Range | None = None
    change: ShareChange | None = None
    graded: bool = False
    """Whether it is a mean of scores from 0 to 1; `fixed` and `broken` are then those that rose and fell."""


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Of all shares; what was asked for, capabilities, health of replies and lm-eval are each judged together.

    Args:
        level: of the intervals.
        margin: within how much of before, on either side, a share counts as kept.
        power: of the smallest detectable differences.
        shares: by the names of `evaluate.suite.Metrics`.
        fields: by the names of the JSON fields.
        scores: by the names of the checkers of the task's replies.
        capabilities: by the topics of the general set.
        health: of replies in good health, by set and question: `task ended`.
        lm_eval: of tasks of lm-eval, by task and metric.
    """

    level: float
    margin: float
    power: float
    shares: dict[str, ShareUncertainty] = field(default_factory=dict)
    fields: dict[str, ShareUncertainty] = field(default_factory=dict)
    scores: dict[str, ShareUncertainty] = field(default_factory=dict)
    capabilities: dict[str, ShareUncertainty] = field(default_factory=dict)
    health: dict[str, ShareUncertainty] = field(default_factory=dict)
    lm_eval: dict[str, ShareUncertainty] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """How many changes of what was asked for Holm's method was applied to."""
        return sum(_judged(kind) for kind in (self.shares, self.fields, self.scores))

    @property
    def has_verdicts(self) -> bool:
        """Whether any change was judged."""
        return bool(self.judged or any(map(_judged, (self.capabilities, self.health, self.lm_eval))))

    @property
    def families(self) -> str:
        """The families that Holm's method was applied to, each by itself, and how many changes each has; for people."""
        parts = (
            ("capabilities", self.capabilities),
            ("shares of the health of replies", self.health),
            ("metrics of lm-eval", self.lm_eval),
        )
        others = [f"{_judged(kind)} {name}" for name, kind in parts if _judged(kind)]
        if self.judged:
            others.insert(0, "1 change" if self.judged == 1 else f"{self.judged} changes")
        return f"{', '.join(others)}, each group by itself" if len(others) > 1 else "".join(others)


def _judged(kind: Mapping[str, ShareUncertainty]) -> int:
    return sum(share.change is not None for share in kind.values())


def read_uncertainty(fields: Fields) -> Uncertainty | None:
    """What a file says; None where it says nothing, as files of older versions. What is damaged is left out."""
    level, margin, power = (fields.number(key) for key in ("level", "margin", "power"))
    if level is None or margin is None or power is None:
        return None
    kinds = (
        read_shares(fields.inner(kind)) for kind in ("shares", "fields", "scores", "capabilities", "health", "lm_eval")
    )
    return Uncertainty(level, margin, power, *kinds)


def uncertainty_in(result: Any) -> Uncertainty | None:
    """That of a decoded `result.json`."""
    return read_uncertainty(Fields.of(result, "result.json", []).inner("uncertainty"))


def read_shares(fields: Fields) -> dict[str, ShareUncertainty]:
    """Shares by name; what is damaged is left out."""
    shares = {}
    for name in fields.content:
        share = fields.inner(name)
        items = share.integer("items")
        if items is not None:
            before, after = read_range(share.inner("before")), read_range(share.inner("after"))
            graded = bool(share.flag("graded"))
            shares[name] = ShareUncertainty(items, before, after, _change(share.inner("change")), graded)
    return shares


def read_range(fields: Fields) -> Range | None:
    """An interval; None where an end is missing."""
    low, high = fields.number("low"), fields.number("high")
    return None if low is None or high is None else Range(low, high)


def _change(fields: Fields) -> ShareChange | None:
    found, verdict = read_range(fields.inner("range")), fields.text("verdict")
    fixed, broken = fields.integer("fixed"), fields.integer("broken")
    p_value, adjusted_p = fields.number("p_value"), fields.number("adjusted_p")
    if found is None or fixed is None or broken is None or p_value is None or adjusted_p is None:
        return None
    if verdict not in VERDICTS:
        return None
    return ShareChange(found, fixed, broken, p_value, adjusted_p, verdict, fields.number("smallest_detectable"))
