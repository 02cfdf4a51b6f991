"""The dial in figures and sentences: what each value between base and tuned gained and forgot, and the knee."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.report.numbers import GAP, loss, loss_change, percent, percent_change, points_change
from tutelage.report.score_names import score_name
from tutelage.runs.divergence import DivergenceMeasure
from tutelage.runs.uncertainty import Uncertainty

ForgettingKey = Literal["general", "kl_general", "kl_task"]

LOSS, SCORE = "heldout_loss", "score "
"""What counts as gain is `exact_match`, the loss, or a checker's score with this before its name."""
FORGETTING: dict[ForgettingKey, str] = {
    "general": "general set, lost of the base",
    "kl_general": "moved from the base, general prompts (KL)",
    "kl_task": "moved from the base, task prompts (KL)",
}
LEVEL = f"95{GAP}%"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; the ends are None where there is none, as of the base itself."""

    number: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class DialPoint:
    """A value of the dial, and what it gained and forgot against value 0, in the units of the axes."""

    value: float
    gain: Estimate | None
    forgotten: Estimate | None

    @property
    def label(self) -> str:
        """The value as it is written."""
        return value_text(self.value)


@dataclass(frozen=True, slots=True)
class DialRow:
    """All that was measured at one value: numbers, intervals of the shares (as `after`), distance from the base."""

    metrics: Mapping[str, Any]
    uncertainty: Uncertainty
    divergence: Mapping[str, DivergenceMeasure]


@dataclass(frozen=True, slots=True)
class Knee:
    """A value that lies above the straight line from base to tuned, and is shown to.

    Attributes:
        value: of the dial.
        gain_ratio: of the whole gain so much is there.
        forgotten_ratio: of all that tuned forgot so much is.
        advantage: the first less the second; its interval is above 0.
    """

    value: float
    gain_ratio: float
    forgotten_ratio: float
    advantage: Estimate


@dataclass(frozen=True, slots=True)
class Dial:
    """All that was found between base and tuned.

    Attributes:
        gain: what counts as gain; None where nothing was measured that could.
        forgetting: what counts as forgetting; None likewise.
        points: by rising value, the base first.
        knee: None where none is shown, and `no_knee` says why.
        no_knee: the reason; empty where there is a knee.
        margin: the share of the general set that may be lost.
        within_margin: the largest value that lost no more; None without a general set.
    """

    gain: str | None
    forgetting: ForgettingKey | None
    points: tuple[DialPoint, ...]
    knee: Knee | None
    no_knee: str
    margin: float
    within_margin: DialPoint | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """For people: the knee, or why none is shown, and the largest value within the margin."""
        said = [self.knee_sentence]
        if self.within_margin is not None:
            said.append(self._margin_sentence(self.within_margin))
        if self.knee is not None and self.forgetting != "general":
            said.append(
                "Divergence stands in for forgetting, as there is no general set: it grows with about the square of "
                "the value, so that almost any run has a knee near 0.5."
            )
        if beyond := [point.label for point in self.points if point.value > 1]:
            said.append(f"Above 1 the change is exaggerated ({', '.join(beyond)}): no knee is looked for there.")
        return tuple(said)

    @property
    def knee_sentence(self) -> str:
        """Where the knee is, or why none is shown."""
        if self.knee is None:
            return f"No knee shown: {self.no_knee}."
        return (
            f"Knee at {value_text(self.knee.value)}: {percent(self.knee.gain_ratio)} of the gain for "
            f"{percent(self.knee.forgotten_ratio)} of what tuned forgot, so {_advantage(self.knee.advantage)} above "
            "the straight line from base to tuned."
        )

    def _margin_sentence(self, point: DialPoint) -> str:
        allowed = percent_change(self.margin).removeprefix("+")
        if point.value == 0:
            return f"No value above 0 lost at most {allowed} of the general set."
        assert point.forgotten is not None
        lost, high = (
            None if number is None else points_change(number).removeprefix("+")
            for number in (point.forgotten.number, point.forgotten.high)
        )
        doubt = ""
        if point.forgotten.high is not None:
            sure = point.forgotten.high <= self.margin
            doubt = f", at most {high} at {LEVEL}" if sure else f"; these items do not rule out {high} at {LEVEL}"
        return f"Largest value that lost at most {allowed} of the general set: {point.label} (lost {lost}{doubt})."


def value_text(value: float) -> str:
    """0.25, 1, 1.5: as people write it."""
    return f"{value:.12g}"


def gain_name(key: str) -> str:
    """What counts as gain, in words."""
    if key == LOSS:
        return "held-out loss, lower than the base's"
    name = score_name(key.removeprefix(SCORE)) if key.startswith(SCORE) else "whole row exact"
    return f"{name}, gained over the base"


def gain_text(key: str, number: float) -> str:
    """A gain with its unit."""
    return f"{loss_change(number)}{GAP}nats" if key == LOSS else percent_change(number)


def forgotten_text(key: ForgettingKey, number: float) -> str:
    """What was forgotten with its unit."""
    return percent_change(number) if key == "general" else f"{loss(number)}{GAP}nats"


def _advantage(advantage: Estimate) -> str:
    assert advantage.low is not None
    assert advantage.high is not None
    return (
        f"{percent_change(advantage.number).removeprefix('+')} ({LEVEL}: "
        f"{points_change(advantage.low)} to {points_change(advantage.high)})"
    )
