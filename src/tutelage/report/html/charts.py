"""Figures -> an inline SVG drawing: axes, ticks, lines or dots, marks, legend, a title that can be read aloud.

Colours are class names (`tone-a` to `tone-c`), which the style sheet fills for light, dark and print.
Coordinates: data (x = step, y = value) become view-box units, x to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from tutelage.report.html.svg import Point, line, place, text

Tone = Literal["a", "b", "c"]

LEFT, RIGHT, BOTTOM = 58, 28, 44
"""Room for the tick labels, the last x label, and the x axis with its name."""

LEGEND_LINE = 20
CHARACTER_WIDTH = 7.2
"""A wide guess for 13-unit system fonts; only the legend's line breaks lean on it."""

BEYOND_DRAWING = 1e100
SMALLEST_SPAN = 1e-100


Range = tuple[float, float]
"""Low and high."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line or one set of dots. A point whose y is no finite number breaks the line.

    `titles` and `ranges` are those of the points, or empty; a range is drawn as a bar, None as nothing.
    """

    name: str
    points: tuple[Point, ...]
    style: Literal["line", "dots", "line-dots"]
    tone: Tone
    titles: tuple[str, ...] = ()
    ranges: tuple[Range | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A point worth naming, such as the best step."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing to make. `y_label` says the quantity and its unit; `lost_xs` are steps without a finite value."""

    key: str
    title: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    lost_xs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Size:
    """View-box units; text is 13 of them high."""

    width: int
    height: int


WIDE = Size(980, 360)
NARROW = Size(440, 300)


@dataclass(frozen=True, slots=True)
class Plane:
    """The plot area and the data range that fills it."""

    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Data x in view-box units."""
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Data y in view-box units."""
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)


def drawable(value: float | None) -> bool:
    """Whether a value has a place on an axis."""
    return value is not None and math.isfinite(value) and abs(value) < BEYOND_DRAWING


def ticks(low: float, high: float, *, most: int = 6, whole: bool = False) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) from `low` to `high`, at most `most` + 1 of them.

    Args:
        low: the lower end, below `high`.
        high: the upper end.
        most: how many steps the range may be cut into.
        whole: keep to whole numbers, as for steps.
    """
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    stride = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    if whole:
        stride = max(1.0, stride)
    # Multiples of the stride, not sums of it: sums drift.
    first, last = math.ceil(low / stride - 1e-9), math.floor(high / stride + 1e-9)
    return [index * stride for index in range(first, last + 1)]


def tick_label(value: float, stride: float) -> str:
    """A tick with as many digits as its neighbours need: `0.25`, `1,500`, `2e-4`."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or stride < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    else:
        text = f"{value:,.{max(0, -math.floor(math.log10(stride) + 1e-9))}f}"
    return f"\u2212{text[1:]}" if text.startswith("-") else text


def draw(chart: Chart, size: Size) -> str:
    """The chart as one `<svg>` element, well-formed as XML and as HTML.

    The plot's left and right ends stand in `data-left` and `data-right`, so that a script can find the step under
    the pointer; the empty `cursor` line is for it.

    Raises:
        ValueError: no series has a point that can be drawn.
    """
    legend = _legend_rows(chart, size)
    plane = _plane(chart, size, top=26 + LEGEND_LINE * len(legend))
    title_id = f"{chart.key}-{size.width}-title"
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {size.width} {size.height}",
            "role": "img",
            "aria-labelledby": title_id,
            "data-left": place(plane.left),
            "data-right": place(plane.right),
            "focusable": "false",
        },
    )
    ElementTree.SubElement(root, "title", {"id": title_id}).text = chart.title
    _draw_legend(root, legend)
    _draw_axes(root, plane, chart.y_label, wide=size.width > 600)
    for series in chart.series:
        _draw_series(root, plane, series)
    for x in chart.lost_xs:
        text(root, plane.x(x), plane.bottom - 4, "×", "lost middle")
    for mark in chart.marks:
        _draw_mark(root, plane, mark)
    line(root, (plane.left, plane.top), (plane.left, plane.bottom), "cursor")
    return ElementTree.tostring(root, encoding="unicode")


def _plane(chart: Chart, size: Size, top: float) -> Plane:
    drawn = [point for series in chart.series for point in series.points if drawable(point[0]) and drawable(point[1])]
    if not drawn:
        raise ValueError(f"chart {chart.key!r} has no finite point")
    xs = [x for x, _ in drawn] + list(chart.lost_xs)
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 1, x_high + 1
    # Zero is on the axis, so that heights can be compared.
    ends = [end for series in chart.series for both in series.ranges if both is not None for end in both]
    y_low, y_high = min(0.0, *(y for _, y in drawn), *ends), max(0.0, *(y for _, y in drawn), *ends)
    if y_high - y_low < SMALLEST_SPAN:
        y_high = y_low + 1
    padding = 0.06 * (y_high - y_low)
    return Plane(
        left=LEFT,
        right=size.width - RIGHT,
        top=top,
        bottom=size.height - BOTTOM,
        x_low=x_low,
        x_high=x_high,
        y_low=y_low - (padding if y_low < 0 else 0),
        y_high=y_high + padding,
    )


def _legend_rows(chart: Chart, size: Size) -> list[list[tuple[float, Series]]]:
    """Series with the x of their legend entry, broken into lines that fit; none for a single series."""
    if len(chart.series) < 2:
        return []
    rows: list[list[tuple[float, Series]]] = [[]]
    x = float(LEFT)
    for series in chart.series:
        width = 30 + CHARACTER_WIDTH * len(series.name) + 14
        if rows[-1] and x + width > size.width - RIGHT:
            rows.append([])
            x = float(LEFT)
        rows[-1].append((x, series))
        x += width
    return rows


def _draw_legend(root: ElementTree.Element, rows: Sequence[Sequence[tuple[float, Series]]]) -> None:
    for index, row in enumerate(rows):
        y = 14 + LEGEND_LINE * index
        for x, series in row:
            if "line" in series.style:
                line(root, (x, y - 4), (x + 22, y - 4), f"line tone-{series.tone}")
            if "dots" in series.style:
                _circle(root, x + 11, y - 4, series)
            text(root, x + 28, y, series.name, "legend")


def _draw_axes(root: ElementTree.Element, plane: Plane, y_label: str, *, wide: bool) -> None:
    y_ticks = ticks(plane.y_low, plane.y_high)
    for value in y_ticks:
        y = plane.y(value)
        line(root, (plane.left, y), (plane.right, y), "axis" if value == 0 else "grid")
        text(root, plane.left - 8, y + 4, tick_label(value, y_ticks[1] - y_ticks[0]), "end")
    x_ticks = ticks(plane.x_low, plane.x_high, most=10 if wide else 5, whole=True)
    for value in x_ticks:
        x = plane.x(value)
        line(root, (x, plane.bottom), (x, plane.bottom + 5), "axis")
        text(root, x, plane.bottom + 19, f"{value:,.0f}", "middle")
    text(root, (plane.left + plane.right) / 2, plane.bottom + 37, "step", "middle name")
    text(root, 6, plane.top - 10, y_label, "name")


def _draw_series(root: ElementTree.Element, plane: Plane, series: Series) -> None:
    for (x, _), both in zip(series.points, series.ranges, strict=False):
        if both is not None:
            low, high = map(plane.y, both)
            line(root, (plane.x(x), low), (plane.x(x), high), f"line interval tone-{series.tone}")
    if "line" in series.style:
        ElementTree.SubElement(
            root, "path", {"d": _path(series.points, plane.x, plane.y), "class": f"line tone-{series.tone}"}
        )
    titles = series.titles or ("",) * len(series.points)
    alone = "line" in series.style and sum(drawable(y) for _, y in series.points) == 1
    if "dots" in series.style or alone:
        for (x, y), title in zip(series.points, titles, strict=True):
            if drawable(y):
                circle = _circle(root, plane.x(x), plane.y(y), series)
                if title:
                    ElementTree.SubElement(circle, "title").text = title


def _path(points: Sequence[Point], place_x: Callable[[float], float], place_y: Callable[[float], float]) -> str:
    """Path data; a point that cannot be drawn lifts the pen."""
    commands, pen_down = [], False
    for x, y in points:
        if drawable(y):
            commands.append(f"{'L' if pen_down else 'M'}{place(place_x(x))} {place(place_y(y))}")
        pen_down = drawable(y)
    return "".join(commands)


def _draw_mark(root: ElementTree.Element, plane: Plane, mark: Mark) -> None:
    x, y = plane.x(mark.x), plane.y(mark.y)
    line(root, (x, plane.top), (x, plane.bottom), "mark")
    ElementTree.SubElement(root, "circle", {"cx": place(x), "cy": place(y), "r": "6", "class": "mark"})
    on_right_half = x > (plane.left + plane.right) / 2
    text(
        root, x - 8 if on_right_half else x + 8, plane.top + 10, mark.text, "end strong" if on_right_half else "strong"
    )


def _circle(root: ElementTree.Element, x: float, y: float, series: Series) -> ElementTree.Element:
    radius = "3" if series.style == "dots" else "3.5"
    return ElementTree.SubElement(
        root, "circle", {"cx": place(x), "cy": place(y), "r": radius, "class": f"{series.style} tone-{series.tone}"}
    )
