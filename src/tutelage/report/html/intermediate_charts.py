"""What was measured while a run trained -> charts by step, with intervals: gained, forgot, distance from the base.

Gain and forgetting stand in one chart where both are points, else in two, as a chart has one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, nan

from tutelage.report.html.charts import NARROW, WIDE, Chart, Range, Series, Tone, draw, drawable
from tutelage.report.html.run_charts import Figure, placed
from tutelage.report.intermediate import change_text, forgotten_name, gained_name, in_points
from tutelage.report.numbers import duration, loss
from tutelage.runs.curves import MeasuredStep
from tutelage.runs.divergence import PLACES
from tutelage.runs.intermediate import IntermediateMeasure, MeasuredChange

Named = tuple[str, str, list[tuple[int, MeasuredChange]]]
"""Its kind, its name, and the number after each step."""
START = MeasuredChange(0.0)
TONES: tuple[Tone, ...] = ("a", "b", "c")


def intermediate_figures(
    measured: Sequence[MeasuredStep], after: IntermediateMeasure | None, after_step: int | None
) -> tuple[Figure, ...]:
    """The charts; none where nothing was measured on the way.

    Args:
        measured: by rising step.
        after: the same after training; None while it goes on.
        after_step: the step whose weights that measured.
    """
    if not measured:
        return ()
    curves = [curve for curve in (_gained(measured), _forgotten(measured)) if curve is not None]
    if after is not None and after_step is not None and after_step > measured[-1].step:
        _append(curves, after, after_step)
    said = _said(measured)
    if len(curves) == 2 and all(in_points(kind) for kind, _, _ in curves):
        figures = [_figure("gained-and-forgot", "Gained and forgot", curves, said)]
    else:
        words = [("gained", "Gained") if _is_gain(curve[1]) else ("forgot", "Forgot") for curve in curves]
        figures = [_figure(key, heading, [curve], said) for (key, heading), curve in zip(words, curves, strict=True)]
    figures.append(_divergence_figure(measured))
    return tuple(figure for figure in figures if figure is not None)


def _gained(measured: Sequence[MeasuredStep]) -> Named | None:
    named = _points([(each.step, each.measured.gain_of, each.measured.gain) for each in measured])
    return None if named is None else (named[0], f"gained: {gained_name(named[0])}", named[1])


def _forgotten(measured: Sequence[MeasuredStep]) -> Named | None:
    named = _points([(each.step, each.measured.forgotten_of, each.measured.forgotten) for each in measured])
    return None if named is None else (named[0], f"forgot: {forgotten_name(named[0])}", named[1])


def _points(
    values: Sequence[tuple[int, str | None, MeasuredChange | None]],
) -> tuple[str, list[tuple[int, MeasuredChange]]] | None:
    """What is measured first, and its values by step; None where nothing is."""
    kind = next((kind for _, kind, _ in values if kind is not None), None)
    if kind is None:
        return None
    return kind, [(0, START), *((step, value) for step, of, value in values if value is not None and of == kind)]


def _is_gain(name: str) -> bool:
    return name.startswith("gained")


def _append(curves: Sequence[Named], after: IntermediateMeasure, step: int) -> None:
    """What was measured after training, at the step that it is of."""
    for kind, name, points in curves:
        of, change = (after.gain_of, after.gain) if _is_gain(name) else (after.forgotten_of, after.forgotten)
        if of == kind and change is not None:
            points.append((step, change))


def _figure(key: str, heading: str, curves: Sequence[Named], said: str) -> Figure | None:
    scale = 100.0 if in_points(curves[0][0]) else 1.0
    series = []
    for (kind, name, points), tone in zip(curves, TONES, strict=False):
        titles = tuple(f"step {step:,}: {change_text(kind, change)}" for step, change in points)
        xy = tuple((float(step), scale * change.number) for step, change in points)
        ranges = tuple(_range(change, scale) for _, change in points)
        series.append(Series(name, xy, "line-dots", tone, titles, ranges))
    unit = "points" if scale == 100.0 else "nats per token"
    lines: dict[int, list[str]] = {}
    for kind, name, points in curves:
        for step, change in points:
            lines.setdefault(step, []).append(f"{name} {change_text(kind, change)}")
    readings = [(float(step), f"step {step:,}: {'; '.join(parts)}") for step, parts in sorted(lines.items())]
    title = f"{heading} by step, with intervals"
    return _drawn(key, heading, series, readings, title=title, unit=unit, caption=said)


def _divergence_figure(measured: Sequence[MeasuredStep]) -> Figure | None:
    series, readings = [], []
    for (place, name), tone in zip(PLACES.items(), TONES, strict=False):
        found = [(each.step, each.measured.divergence[place]) for each in measured if place in each.measured.divergence]
        if not found:
            continue
        changes = [(0, START), *((step, MeasuredChange(one.mean, one.low, one.high)) for step, one in found)]
        series.append(
            Series(
                name,
                tuple((float(step), change.number) for step, change in changes),
                "line-dots",
                tone,
                tuple(f"step {step:,}: {change_text('kl_' + place, change)}" for step, change in changes),
                tuple(_range(change, 1.0) for _, change in changes),
            )
        )
        readings += [(float(step), f"step {step:,}, {name}: {loss(change.number)} nats") for step, change in changes]
    title = "KL divergence from the base by step, with intervals"
    heading, unit = "Distance from the base", "KL (nats per token)"
    return _drawn("divergence", heading, series, sorted(readings), title=title, unit=unit)


def _drawn(
    key: str,
    heading: str,
    series: Sequence[Series],
    readings: Sequence[tuple[float, str]],
    *,
    title: str,
    unit: str,
    caption: str = "",
) -> Figure | None:
    if not any(drawable(y) for each in series for _, y in each.points):
        return None
    chart = Chart(key, title, unit, tuple(series))
    return Figure(key, heading, draw(chart, WIDE), draw(chart, NARROW), caption, placed(readings))


def _range(change: MeasuredChange, scale: float) -> Range | None:
    low, high = (nan if end is None else scale * end for end in (change.low, change.high))
    return (low, high) if drawable(low) and drawable(high) else None


def _said(measured: Sequence[MeasuredStep]) -> str:
    seconds = [each.measured.seconds for each in measured if each.measured.seconds is not None]
    words = (
        "Step 0 is the model before training; bars are 95\N{NO-BREAK SPACE}% intervals of the change since, on the "
        f"same items. Measuring {len(measured)} times while training took {duration(fsum(seconds))}."
    )
    failed = {name for each in measured for name in each.measured.failed}
    return f"{words} Not always measured: {', '.join(sorted(failed))}." if failed else words
