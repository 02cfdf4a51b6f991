"""The books of curation: rows in = kept + dropped + merged, less those that were added, at each step and over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.curate.entries import GONE, READ

CountsByReason = Mapping[tuple[str, str, str], int]
"""Rows by (step, what, reason)."""


@dataclass(slots=True)
class StepCounts:
    """What one step did, in rows; reason -> rows in each table."""

    name: str
    rows_in: int
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    merged: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; tables that are empty are left out."""
        tables = {name: dict(sorted(getattr(self, name).items())) for name in ("dropped", "merged", "changed", "added")}
        return {
            "step": self.name,
            "in": self.rows_in,
            "out": self.rows_out,
            **{name: table for name, table in tables.items() if table},
        }


@dataclass(slots=True)
class Funnel:
    """All steps in their order, reading first."""

    steps: list[StepCounts] = field(default_factory=list)

    def add(self, names: Iterable[str], rows_in: int, rows_out: int, counts: CountsByReason) -> None:
        """Book a stage.

        Args:
            names: its steps in their order.
            rows_in: rows that came to the first of them.
            rows_out: rows that left the last of them.
            counts: what they said.

        Raises:
            AssertionError: the books do not balance, which is a fault of ours.
        """
        for name in names:
            step = StepCounts(name, rows_in)
            for (of_step, what, reason), rows in counts.items():
                if of_step == name:
                    getattr(step, what)[reason] += rows
            step.rows_out = rows_in - sum(getattr(step, what).total() for what in GONE) + step.added.total()
            self.steps.append(step)
            rows_in = step.rows_out
        assert rows_in == rows_out, f"the books of {', '.join(names)} do not balance: {rows_in} rows, {rows_out} there"

    @property
    def rows_in(self) -> int:
        """Rows read."""
        return self.steps[0].rows_in if self.steps else 0

    @property
    def rows_kept(self) -> int:
        """Rows that went through all steps."""
        return self.steps[-1].rows_out if self.steps else 0

    def total(self, what: str) -> int:
        """Rows dropped, merged, changed or added, all steps together."""
        return sum(getattr(step, what).total() for step in self.steps)

    def check(self) -> None:
        """Assert that in + added = kept + dropped + merged."""
        left, right = self.rows_in + self.total("added"), self.rows_kept + sum(map(self.total, GONE))
        assert left == right, f"the funnel does not balance: {left} rows in and added, {right} accounted for"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        totals = {what: self.total(what) for what in ("dropped", "merged", "added", "changed")}
        return {
            "in": self.rows_in,
            "kept": self.rows_kept,
            **totals,
            "steps": [step.as_dict() for step in self.steps],
        }

    def lines(self) -> list[str]:
        """For people: a line a step, and under it each reason."""
        text = []
        for step in self.steps:
            name = "read" if step.name == READ else step.name
            text.append(f"{name}: {step.rows_in:,} in, {step.rows_out:,} out")
            for what in ("dropped", "merged", "changed", "added"):
                text += [f"  {what} {rows:,} {reason}" for reason, rows in getattr(step, what).most_common()]
        return text
