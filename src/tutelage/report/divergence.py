"""The distance of a trained model from its base, in a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.report.numbers import loss
from tutelage.runs.divergence import PLACES, DivergenceMeasure

LEVEL = "95 %"


def divergence_sentence(measures: Mapping[str, DivergenceMeasure]) -> str | None:
    """KL(base || tuned) by place, with intervals; None where nothing was measured."""
    parts = [f"{PLACES[place]} {_with_interval(measures[place])}" for place in PLACES if place in measures]
    if not parts:
        return None
    drawn = all(measure.drawn for measure in measures.values())
    how = "replies that the base drew" if drawn else "the base's likeliest replies"
    return f"Moved from the base by (KL divergence, nats a token, {LEVEL} interval, on {how}): {'; '.join(parts)}."


def _with_interval(measure: DivergenceMeasure) -> str:
    if measure.low is None or measure.high is None:
        return loss(measure.mean)
    return f"{loss(measure.mean)} ({loss(measure.low)} to {loss(measure.high)})"
