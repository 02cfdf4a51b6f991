"""How far a trained model moved from its base, as `result.json` holds it under `divergence`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.runs.fields import Fields

PLACES = {"task": "task prompts", "general": "general prompts"}
"""Where it is measured, and what to call that."""


@dataclass(frozen=True, slots=True)
class DivergenceMeasure:
    """KL(base || tuned) in nats a token over whole vocabularies, on replies of the base.

    Attributes:
        mean: over all tokens.
        low: of its 95 % interval, with prompts as what was drawn; None of a single reply.
        high: the other end.
        replies: so many.
        tokens: of all replies.
        noise: the same of the base and itself, computed in rows of another length.
        drawn: the replies were drawn at temperature 1; False: they are the likeliest ones.
    """

    mean: float
    low: float | None
    high: float | None
    replies: int
    tokens: int
    noise: float | None
    drawn: bool


def read_divergence(fields: Fields) -> dict[str, DivergenceMeasure]:
    """What a file says by place; empty where it says nothing, as older files do. What is damaged is left out."""
    measures = {}
    for place in PLACES:
        if place not in fields.content:
            continue
        measure = fields.inner(place)
        mean, replies, tokens = measure.number("mean"), measure.integer("replies"), measure.integer("tokens")
        if mean is not None and replies is not None and tokens is not None:
            low, high, noise = (measure.number(name) for name in ("low", "high", "noise"))
            drawn = measure.content.get("drawn") is True
            measures[place] = DivergenceMeasure(mean, low, high, replies, tokens, noise, drawn)
    return measures


def divergence_in(result: Any) -> dict[str, DivergenceMeasure]:
    """That of a decoded `result.json`."""
    return read_divergence(Fields.of(result, "result.json", []).inner("divergence"))
