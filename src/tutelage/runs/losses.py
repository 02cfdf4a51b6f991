"""Losses by document and source: what `before.json` keeps of them, and the means of `result.json` under `losses`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.runs.fields import Fields

PLACES = {
    "heldout": "held-out rows",
    "general_text": "general text",
    "references": "references of the general set",
}
"""Where losses are measured, and what to call that."""
VERDICTS = ("better", "worse", "not shown")


@dataclass(frozen=True, slots=True)
class DocumentLosses:
    """Of the documents of one source, in one order.

    Attributes:
        names: what tells a document from others of its source.
        nats: summed over the tokens of each.
        tokens: of each.
        bytes: of the text of each, in UTF-8; 0 where they are not counted.
    """

    names: tuple[str, ...]
    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    bytes: tuple[int, ...]


SourceLosses = Mapping[str, DocumentLosses]
"""By the name of the source: a file, or one of a hub data set."""
Losses = Mapping[str, SourceLosses]
"""By place, see `PLACES`."""


@dataclass(frozen=True, slots=True)
class Mean:
    """In nats, with its 95 % interval; None = one document, or numbers that are none, give none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class LossChange:
    """After minus before on the same documents, below 0 for better, with its interval.

    Attributes:
        value: in nats.
        low: of its 95 % interval; None as for a mean.
        high: the other end.
        verdict: better or worse only where the interval excludes 0.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A mean loss before and after training; None = that model was not measured, or not on the same documents."""

    before: Mean | None = None
    after: Mean | None = None
    change: LossChange | None = None


@dataclass(frozen=True, slots=True)
class LossMeasure:
    """Of some documents.

    Attributes:
        documents: so many.
        tokens: of all of them.
        bytes: the same; 0 where they are not counted.
        per_token: the loss.
        per_byte: the same over the bytes of the text.
    """

    documents: int
    tokens: int
    bytes: int
    per_token: Rate
    per_byte: Rate | None = None


@dataclass(frozen=True, slots=True)
class PlaceMeasure:
    """Of all documents of a place, and of each source where it has several."""

    all: LossMeasure
    sources: Mapping[str, LossMeasure] = field(default_factory=dict)


def losses_in(saved: Any) -> dict[str, dict[str, DocumentLosses]]:
    """Those of a decoded `before.json` or `after.json`; empty where it has none.

    Raises:
        TypeError, ValueError, KeyError, AttributeError: they are damaged.
    """
    return {
        place: {
            source: DocumentLosses(
                tuple(map(str, found["names"])),
                tuple(map(float, found["nats"])),
                tuple(map(int, found["tokens"])),
                tuple(map(int, found["bytes"])),
            )
            for source, found in sources.items()
        }
        for place, sources in saved.get("losses", {}).items()
    }


def read_loss_measures(fields: Fields) -> dict[str, PlaceMeasure]:
    """What a file says by place; empty where it says nothing, as older files do. What is damaged is left out."""
    places = {}
    for place in PLACES:
        if place not in fields.content:
            continue
        measure = _measure(fields.inner(place).inner("all"))
        if measure is not None:
            places[place] = PlaceMeasure(measure, dict(_sources(fields.inner(place).inner("sources"))))
    return places


def loss_measures_in(result: Any) -> dict[str, PlaceMeasure]:
    """Those of a decoded `result.json`."""
    return read_loss_measures(Fields.of(result, "result.json", []).inner("losses"))


def _sources(fields: Fields) -> Iterator[tuple[str, LossMeasure]]:
    for source in fields.content:
        measure = _measure(fields.inner(source))
        if measure is not None:
            yield source, measure


def _measure(fields: Fields) -> LossMeasure | None:
    documents, tokens, in_bytes = (fields.integer(name) for name in ("documents", "tokens", "bytes"))
    if not documents or not tokens:
        return None
    per_byte = _rate(fields.inner("per_byte")) if in_bytes else None
    return LossMeasure(documents, tokens, in_bytes or 0, _rate(fields.inner("per_token")), per_byte)


def _rate(fields: Fields) -> Rate:
    change, verdict = fields.inner("change"), fields.inner("change").text("verdict")
    value = change.number("value")
    return Rate(
        _mean(fields.inner("before")),
        _mean(fields.inner("after")),
        LossChange(value, change.number("low"), change.number("high"), verdict)
        if value is not None and verdict in VERDICTS
        else None,
    )


def _mean(fields: Fields) -> Mean | None:
    value = fields.number("value")
    return None if value is None else Mean(value, fields.number("low"), fields.number("high"))
