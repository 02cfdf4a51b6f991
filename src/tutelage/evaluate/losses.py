"""Losses by document -> mean losses with intervals, by source, and what the documents show of their change.

Documents are what was drawn: the tokens of one are alike. The change is paired, document by document, so that what
makes some documents harder than others leaves its interval alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeVar

from tutelage.evaluate.means import ratio_interval
from tutelage.runs.losses import (
    PLACES,
    DocumentLosses,
    LossChange,
    Losses,
    LossMeasure,
    Mean,
    PlaceMeasure,
    Rate,
    SourceLosses,
)
from tutelage.types import Address

T = TypeVar("T")
Unit = Literal["tokens", "bytes"]


def by_source(
    documents: Mapping[Address, tuple[float, int]], sizes: Mapping[Address, int] = MappingProxyType({})
) -> dict[str, DocumentLosses]:
    """Losses of documents by the file that they stand in, in the order of their addresses.

    Args:
        documents: by address, the summed loss and its tokens (`heldout.HeldoutLoss`).
        sizes: bytes of the text; of none, or of all.
    """
    sources: dict[str, list[Address]] = {}
    for address in sorted(documents, key=lambda address: (address.file, address.number)):
        sources.setdefault(address.file, []).append(address)
    return {
        source: DocumentLosses(
            tuple(str(address.number) for address in addresses),
            tuple(documents[address][0] for address in addresses),
            tuple(documents[address][1] for address in addresses),
            tuple(sizes.get(address, 0) for address in addresses),
        )
        for source, addresses in sources.items()
    }


def loss_measures(before: Losses, after: Losses) -> dict[str, PlaceMeasure]:
    """Of every place that either was measured at.

    Args:
        before: of the untouched model; empty where it was not measured, as for one model alone.
        after: of the trained one.
    """
    return {
        place: _place(before.get(place, {}), after.get(place, {}))
        for place in PLACES
        if before.get(place) or after.get(place)
    }


def _place(before: SourceLosses, after: SourceLosses) -> PlaceMeasure:
    sources = dict.fromkeys((*after, *before))
    measures = {source: _measure(before.get(source), after.get(source)) for source in sources}
    return PlaceMeasure(
        _measure(_joined(before), _joined(after)) if len(measures) > 1 else next(iter(measures.values())),
        measures if len(measures) > 1 else {},
    )


def _joined(losses: SourceLosses) -> DocumentLosses | None:
    """All documents, named by their source, too."""
    if not losses:
        return None
    return DocumentLosses(
        tuple(f"{source}:{name}" for source, found in losses.items() for name in found.names),
        _together(found.nats for found in losses.values()),
        _together(found.tokens for found in losses.values()),
        _together(found.bytes for found in losses.values()),
    )


def _together(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(value for part in parts for value in part)


def _measure(before: DocumentLosses | None, after: DocumentLosses | None) -> LossMeasure:
    counted = after or before
    assert counted is not None, "a source was measured at least once"
    in_bytes = sum(counted.bytes)
    return LossMeasure(
        len(counted.names),
        sum(counted.tokens),
        in_bytes,
        _rate(before, after, "tokens"),
        _rate(before, after, "bytes") if in_bytes else None,
    )


def _rate(before: DocumentLosses | None, after: DocumentLosses | None, unit: Unit) -> Rate:
    first, last = (None if losses is None else _mean(losses.nats, _counts(losses, unit)) for losses in (before, after))
    if before is None or after is None or before.names != after.names or before.tokens != after.tokens:
        return Rate(first, last)
    differences = [later - earlier for earlier, later in zip(before.nats, after.nats, strict=True)]
    change = _mean(differences, _counts(after, unit))
    return Rate(first, last, LossChange(change.value, change.low, change.high, verdict(change)))


def _counts(losses: DocumentLosses, unit: Unit) -> tuple[int, ...]:
    return losses.tokens if unit == "tokens" else losses.bytes


def _mean(sums: Sequence[float], counts: Sequence[int]) -> Mean:
    if not all(map(math.isfinite, sums)):
        return Mean(sum(sums) / sum(counts))
    value = math.fsum(sums) / sum(counts)
    if len(sums) < 2:
        return Mean(value)
    interval = ratio_interval(sums, counts)
    return Mean(value, interval.low, interval.high)


def verdict(change: Mean) -> str:
    """Better or worse where the interval of a change of loss excludes 0; else it is not shown."""
    if change.high is not None and change.high < 0:
        return "better"
    if change.low is not None and change.low > 0:
        return "worse"
    return "not shown"
