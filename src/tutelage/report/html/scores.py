"""What was measured before and after training -> lines with their change and verdict, and the one-sentence outcome.

A figure that fell is said in the same words and at the same size as one that rose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.report import numbers
from tutelage.runs.reading import Result, Scores

NOT_MEASURED = "not measured"
ARROW = "→"

Kind = Literal["share", "loss", "number"]
Verdict = Literal["better", "worse", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One measured figure. A share is better high, a loss better low; of a plain number the page does not judge."""

    key: str
    name: str
    kind: Kind
    before: float | None
    after: float | None

    @property
    def before_text(self) -> str:
        """The figure before training, in words."""
        return self._say(self.before)

    @property
    def after_text(self) -> str:
        """The figure after training, in words."""
        return self._say(self.after)

    @property
    def change(self) -> float | None:
        """After minus before; None where it cannot be known."""
        if self.before is None or self.after is None or not math.isfinite(self.after - self.before):
            return None
        return self.after - self.before

    @property
    def change_text(self) -> str:
        """The change in words: points for shares, three decimals for losses."""
        if self.change is None:
            return "unknown"
        if self.kind == "number":
            return ("+" if self.change > 0 else "") + numbers.significant(self.change)
        return numbers.percent_change(self.change) if self.kind == "share" else numbers.loss_change(self.change)

    @property
    def verdict(self) -> Verdict:
        """Whether the change is for the better; `same` when it is too small to be shown."""
        if self.change is None or self.kind == "number":
            return "unknown"
        if not self.change_text.startswith(("+", numbers.MINUS)):
            return "same"
        return "better" if (self.change > 0) == (self.kind == "share") else "worse"

    def _say(self, value: float | None) -> str:
        if value is None:
            return NOT_MEASURED
        if self.kind == "number":
            return numbers.significant(value)
        return numbers.percent(value) if self.kind == "share" else numbers.loss(value)


def score_lines(before: Scores, after: Scores) -> tuple[ScoreLine, ...]:
    """Every figure of either side: the four main ones always, then each field, then figures without a name of ours."""
    main = (
        ScoreLine("exact_match", "Whole-row exact match", "share", before.exact_match, after.exact_match),
        ScoreLine("valid_json", "Valid JSON", "share", before.valid_json, after.valid_json),
        ScoreLine("heldout_loss", "Held-out loss", "loss", before.heldout_loss, after.heldout_loss),
        ScoreLine("general", "General set", "share", before.general, after.general),
    )
    fields = (
        ScoreLine(f"field-{name}", f"Field {name}", "share", before.fields.get(name), after.fields.get(name))
        for name in _names(before.fields, after.fields)
    )
    others = (
        ScoreLine(name, name, "number", before.others.get(name), after.others.get(name))
        for name in _names(before.others, after.others)
    )
    return (*main, *fields, *others)


def outcome(lines: Sequence[ScoreLine]) -> str:
    """One sentence: `whole-row exact match 0.0 % → 81.0 %; held-out loss 2.310 → 0.120`; empty if none measured."""
    phrases = [
        f"{line.name[0].lower()}{line.name[1:]} {line.before_text} {ARROW} {line.after_text}"
        for line in lines
        if line.key in ("exact_match", "heldout_loss", "general") and (line.before, line.after) != (None, None)
    ]
    return _sentence("; ".join(phrases))


def gained_and_forgot(lines: Sequence[ScoreLine]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two lists of equal weight: the figures that got better, and those that got worse."""
    better = tuple(f"{line.name} {line.change_text}" for line in lines if line.verdict == "better")
    worse = tuple(f"{line.name} {line.change_text}" for line in lines if line.verdict == "worse")
    general = next(line for line in lines if line.key == "general")
    unknown = ("What it forgot was not measured: the general set lacks a figure.",) if general.change is None else ()
    return (
        better or ("Nothing that was measured got better.",),
        (worse or ("Nothing that was measured got worse.",)) + unknown,
    )


def progress(result: Result | None, steps: int, last_loss: float | None, lowest_heldout: float | None) -> str:
    """The sentence for a run without before and after figures: how far it is, and its losses."""
    ended = "The run has ended" if result else "The run has no result yet"
    phrases = [f"{steps:,} {'step' if steps == 1 else 'steps'} recorded"]
    if last_loss is not None:
        phrases.append(f"last training loss {numbers.loss(last_loss)}")
    if lowest_heldout is not None:
        phrases.append(f"lowest held-out loss {numbers.loss(lowest_heldout)}")
    return f"{ended}: {'; '.join(phrases)}."


def _names(*sides: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for side in sides for name in side))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
