"""What a model gained and forgot while it trained, in words: a line for the screen, and the names of both."""

from __future__ import annotations

from typing import cast

from tutelage.report.dial import FORGETTING, LOSS, SCORE, ForgettingKey
from tutelage.report.numbers import GAP, duration, loss, loss_change, percent_change, points_change
from tutelage.report.score_names import score_name
from tutelage.runs.intermediate import LOST, IntermediateMeasure, MeasuredChange

LEVEL = f"95{GAP}%"


def gained_name(key: str) -> str:
    """What counts as gain."""
    if key == LOSS:
        return "held-out loss, lower"
    return score_name(key.removeprefix(SCORE)) if key.startswith(SCORE) else "whole row exact"


def forgotten_name(key: str) -> str:
    """What counts as forgotten; a name that this version does not know stays as it is."""
    return "general set, lost" if key == LOST else FORGETTING.get(cast(ForgettingKey, key), key)


def in_points(kind: str | None) -> bool:
    """Whether a gain or a loss of this kind is a share."""
    return kind is not None and kind != LOSS and not kind.startswith("kl_")


def change_text(kind: str, change: MeasuredChange) -> str:
    """A number with its unit and its interval."""
    if in_points(kind):
        text, ends = percent_change(change.number), [*map(points_change, _ends(change))]
    else:
        text = f"{(loss_change if kind == LOSS else loss)(change.number)}{GAP}nats"
        ends = [*map(loss, _ends(change))]
    return f"{text} ({LEVEL} {' to '.join(ends)})" if ends else text


def _ends(change: MeasuredChange) -> tuple[float, ...]:
    return () if change.low is None or change.high is None else (change.low, change.high)


def intermediate_sentence(measure: IntermediateMeasure) -> str:
    """What was gained, what was forgotten, and the time that it took to measure."""
    parts = []
    if measure.gain_of is not None and measure.gain is not None:
        parts.append(f"{gained_name(measure.gain_of)} {change_text(measure.gain_of, measure.gain)}")
    if measure.forgotten_of is not None and measure.forgotten is not None:
        parts.append(f"{forgotten_name(measure.forgotten_of)} {change_text(measure.forgotten_of, measure.forgotten)}")
    return f"{'; '.join(parts) or 'nothing could be compared'}; measured in {duration(measure.seconds)}"
