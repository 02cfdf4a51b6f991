"""What was measured before and after training -> lines with their change and verdict, and the one-sentence outcome.

A figure that fell is said in the same words and at the same size as one that rose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from tutelage.report import numbers
from tutelage.report.health import NAMES as HEALTH_NAMES
from tutelage.report.health import SETS, health_keys
from tutelage.report.likelihoods import ends_text, mean_ends
from tutelage.report.score_names import score_name
from tutelage.runs.losses import Rate
from tutelage.runs.reading import Result, Scores
from tutelage.runs.uncertainty import Range, ShareUncertainty, Uncertainty

NOT_MEASURED = "not measured"
ARROW = "→"

Kind = Literal["share", "loss", "number"]
Verdict = Literal["gained", "lost", "kept", "not shown", "better", "worse", "same", "unknown"]
"""The first four are of shares with an interval; without one, the next three say only which way a figure moved."""

RISEN = ("gained", "better")
FALLEN = ("lost", "worse")


NO_UNCERTAINTY = Uncertainty(0.95, 0.05, 0.8)
"""Stands for that of a run which has none: it says nothing of any share."""
MAIN: tuple[tuple[str, str, Kind], ...] = (
    ("exact_match", "Whole-row exact match", "share"),
    ("valid_json", "Valid JSON", "share"),
    ("heldout_loss", "Held-out loss", "loss"),
    ("general", "General set", "share"),
)
ALWAYS = ("heldout_loss", "general")


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One measured figure. A share is better high, a loss better low; of a plain number the page does not judge."""

    key: str
    name: str
    kind: Kind
    before: float | None
    after: float | None
    share: ShareUncertainty | None = None
    rate: Rate | None = None
    """Of a loss, with intervals."""

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
    def before_range(self) -> str:
        """The interval before training, in words; empty where there is none."""
        if self.rate is not None:
            return mean_ends(self.rate.before)
        return _range(self.share.before if self.share else None)

    @property
    def after_range(self) -> str:
        """That after training."""
        if self.rate is not None:
            return mean_ends(self.rate.after)
        return _range(self.share.after if self.share else None)

    @property
    def change_range(self) -> str:
        """The interval of the change."""
        if self.rate is not None and self.rate.change is not None:
            return ends_text(self.rate.change.low, self.rate.change.high, change=True)
        if self.share is None or self.share.change is None:
            return ""
        ends = self.share.change.range
        return f"{numbers.points_change(ends.low)} to {numbers.points_change(ends.high)}"

    @property
    def verdict_note(self) -> str:
        """How many items moved; and where no change is shown, which would have been."""
        if self.share is None or self.share.change is None:
            return ""
        change = self.share.change
        up, down = ("rose", "fell") if self.share.graded else ("fixed", "broken")
        moved = f"{numbers.count(change.fixed)} {up}, {numbers.count(change.broken)} {down} of {self._items}"
        return f"{moved}; {self._smallest}" if change.verdict == "not shown" else moved

    @property
    def _items(self) -> str:
        assert self.share is not None
        return f"{numbers.count(self.share.items)} {'item' if self.share.items == 1 else 'items'}"

    @property
    def _smallest(self) -> str:
        assert self.share is not None
        assert self.share.change is not None
        smallest = self.share.change.smallest_detectable
        if smallest is None:
            return "so few can show no change"
        return f"they would show {numbers.percent_change(smallest).removeprefix('+')} or more"

    @property
    def verdict(self) -> Verdict:
        """What is shown of the change; without an interval, which way it went, `same` when too small to be said."""
        if self.change is not None and self.share is not None and self.share.change is not None:
            return cast(Verdict, self.share.change.verdict)
        if self.change is not None and self.rate is not None and self.rate.change is not None:
            return cast(Verdict, self.rate.change.verdict)
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


def score_lines(
    before: Scores, after: Scores, uncertainty: Uncertainty | None = None, heldout: Rate | None = None
) -> tuple[ScoreLine, ...]:
    """Every figure of either side: scores, main ones, capabilities, fields, lm-eval, then the unnamed.

    Held-out loss and the general set always have a line, as a run without them says less of itself than it could;
    those of a task only where one was measured.
    """
    told = uncertainty or NO_UNCERTAINTY
    main = (
        ScoreLine(
            key,
            name,
            kind,
            getattr(before, key),
            getattr(after, key),
            told.shares.get(key),
            heldout if key == "heldout_loss" else None,
        )
        for key, name, kind in MAIN
        if key in ALWAYS or (getattr(before, key), getattr(after, key)) != (None, None)
    )
    health = (
        ScoreLine(
            f"health-{name}-{question}",
            f"{HEALTH_NAMES[question]}, {SETS.get(name, name)}",
            "share",
            before.health.get(name, {}).get(question),
            after.health.get(name, {}).get(question),
            told.health.get(f"{name} {question}"),
        )
        for name, question in health_keys(before.health, after.health)
    )
    others = (
        ScoreLine(name, name, "number", before.others.get(name), after.others.get(name))
        for name in _names(before.others, after.others)
    )
    scores = _shares("score-", _titled_score, before.scores, after.scores, told.scores)
    known = told.capabilities
    capabilities = _shares("capability-", "Capability {}".format, before.capabilities, after.capabilities, known)
    fields = _shares("field-", "Field {}".format, before.fields, after.fields, told.fields)
    lm_eval = _shares("lm_eval-", "{}".format, before.lm_eval, after.lm_eval, told.lm_eval)
    return (*scores, *main, *capabilities, *fields, *lm_eval, *health, *others)


def _titled_score(name: str) -> str:
    title = score_name(name)
    return title[0].upper() + title[1:]


def _shares(
    key: str,
    title: Callable[[str], str],
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    uncertainties: Mapping[str, ShareUncertainty],
) -> tuple[ScoreLine, ...]:
    """A line for each share of either side."""
    return tuple(
        ScoreLine(f"{key}{name}", title(name), "share", before.get(name), after.get(name), uncertainties.get(name))
        for name in _names(before, after)
    )


def outcome(lines: Sequence[ScoreLine]) -> str:
    """One sentence: `whole-row exact match 0.0 % → 81.0 %; held-out loss 2.310 → 0.120`; empty if none measured."""
    phrases = [
        f"{line.name[0].lower()}{line.name[1:]} {line.before_text} {ARROW} {line.after_text}"
        for line in lines
        if (line.key in ("exact_match", "heldout_loss", "general") or line.key.startswith("score-"))
        and (line.before, line.after) != (None, None)
    ]
    return _sentence("; ".join(phrases))


def gained_and_forgot(lines: Sequence[ScoreLine]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two lists of equal weight: the figures that got better, and those that got worse.

    A share with an interval stands there only where that shows it. Of the general set the second list says so, too,
    where it shows nothing: a fall that is not shown is not called none.
    """
    better = tuple(f"{line.name} {line.change_text}" for line in lines if line.verdict in RISEN)
    worse = tuple(f"{line.name} {line.change_text}" for line in lines if line.verdict in FALLEN)
    judged = any(line.share is not None and line.share.change is not None for line in lines)
    nothing = "Nothing is shown to have got" if judged else "Nothing that was measured got"
    general = next(line for line in lines if line.key == "general")
    remarks: tuple[str, ...] = ()
    if general.change is None:
        remarks = ("What it forgot was not measured: the general set lacks a figure.",)
    elif general.verdict == "not shown":
        remarks = (f"{general.name} {general.change_text}: not shown, {general.verdict_note}.",)
    return better or (f"{nothing} better.",), (worse or (f"{nothing} worse.",)) + remarks


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


def _range(interval: Range | None) -> str:
    if interval is None:
        return ""
    return f"{numbers.percent(interval.low).removesuffix(f'{numbers.GAP}%')} to {numbers.percent(interval.high)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
