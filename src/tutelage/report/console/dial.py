"""The dial for a terminal: what each value gained and forgot, and all measures with a column for each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tutelage.report.console.measures import MeasuresTable, several_models
from tutelage.report.dial import LEVEL, LOSS, Dial, DialRow, Estimate
from tutelage.report.numbers import loss, loss_change, points_change, points_range
from tutelage.runs.divergence import PLACES, DivergenceMeasure


def change_table(dial: Dial) -> MeasuresTable:
    """What each value gained and forgot against the base, with intervals, a row for each."""
    headings, columns = ["value"], [[point.label for point in dial.points]]
    if dial.gain == LOSS:
        headings += ["gained, nats", LEVEL]
        columns += _columns([point.gain for point in dial.points], loss_change, _between(loss_change))
    elif dial.gain is not None:
        headings += ["gained, points", LEVEL]
        columns += _columns([point.gain for point in dial.points], points_change, points_range)
    if dial.forgetting == "general":
        headings += ["forgot, points", LEVEL]
        columns += _columns([point.forgotten for point in dial.points], _lost, points_range)
    elif dial.forgetting is not None:
        headings += ["forgot, nats", LEVEL]
        columns += _columns([point.forgotten for point in dial.points], loss, _between(loss))
    knee = None if dial.knee is None else dial.knee.value
    headings.append("")
    columns.append([_name(point.value, is_knee=point.value == knee) for point in dial.points])
    return MeasuresTable(tuple(headings), tuple(zip(*columns, strict=True)))


def _name(value: float, *, is_knee: bool) -> str:
    return "knee" if is_knee else {0.0: "base", 1.0: "tuned"}.get(value, "")


def _lost(share: float) -> str:
    return points_change(share).removeprefix("+")


def _between(write: Callable[[float], str]) -> Callable[[float, float], str]:
    return lambda low, high: f"{write(low)}…{write(high)}"


def _columns(
    estimates: Sequence[Estimate | None], write: Callable[[float], str], write_range: Callable[[float, float], str]
) -> list[list[str]]:
    """The numbers, and their intervals."""
    known = [estimate for estimate in estimates if estimate is not None]
    ranges = ["" if each.low is None or each.high is None else write_range(each.low, each.high) for each in known]
    return [[write(each.number) for each in known], ranges]


def dial_table(rows: Mapping[str, DialRow]) -> MeasuresTable:
    """Measures of each value with their intervals, and how far it moved from the base.

    Args:
        rows: by the text of the value, in the order of the columns.
    """
    table = several_models(
        {label: row.metrics for label, row in rows.items()}, {label: row.uncertainty for label, row in rows.items()}
    )
    moved = []
    for place, words in PLACES.items():
        if any(place in row.divergence for row in rows.values()):
            cells = [cell for row in rows.values() for cell in _cells(row.divergence.get(place))]
            moved.append((f"KL, {words}", *cells))
    return replace(table, rows=(*table.rows, *moved))


def _cells(measure: DivergenceMeasure | None) -> tuple[str, str]:
    if measure is None:
        return "-", ""
    if measure.low is None or measure.high is None:
        return loss(measure.mean), ""
    return loss(measure.mean), _between(loss)(measure.low, measure.high)
