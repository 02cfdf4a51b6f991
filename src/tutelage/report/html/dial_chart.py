"""The dial as a drawing: what was forgotten to the right, what was gained upwards, a point for each value.

Bars are intervals; the dashed line joins base and tuned, above which a value gives more than it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

from tutelage.report.dial import (
    FORGETTING,
    LOSS,
    Dial,
    DialPoint,
    Estimate,
    ForgettingKey,
    forgotten_text,
    gain_name,
    gain_text,
)
from tutelage.report.html.charts import CHARACTER_WIDTH, Plane, Size, drawable, tick_label, ticks
from tutelage.report.html.svg import Point, line, place, text
from tutelage.report.numbers import percent_change

WIDE = Size(980, 440)
NARROW = Size(440, 400)
LEFT, RIGHT, TOP, BOTTOM = 58, 28, 34, 52
"""Room for tick labels, the last x label, the name of the y axis, and the x axis with its name."""

SMALLEST_SPAN = 1e-9
PADDING = 0.06
LABEL_HEIGHT = 13
RADIUS = 4.5
STRIDE = 6.0
SIDES = ((-9, -8, True), (9, -8, False), (9, 19, False), (-9, 19, True), (-9, -24, True), (9, 34, False))
"""Where a point's name may stand: to the right and down of it, in units, and whether it ends there."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A point that can be drawn, its numbers in the units of the axes."""

    point: DialPoint
    x: Estimate
    y: Estimate


def dial_drawing(dial: Dial, size: Size) -> str:
    """One `<svg>` element; empty where an axis was not measured, or no point but the base has a finite place."""
    if dial.gain is None or dial.forgetting is None:
        return ""
    placed = [
        _Placed(
            point, _scaled(point.forgotten, dial.forgetting == "general"), _scaled(point.gain, _is_share(dial.gain))
        )
        for point in dial.points
        if point.gain is not None and point.forgotten is not None
    ]
    placed = [each for each in placed if drawable(each.x.number) and drawable(each.y.number)]
    if len(placed) < 2:
        return ""
    margin = 100 * dial.margin if dial.forgetting == "general" else None
    plane = _plane(placed, size)
    title_id = f"dial-{size.width}-title"
    box = {"viewBox": f"0 0 {size.width} {size.height}", "role": "img", "aria-labelledby": title_id}
    root = ElementTree.Element("svg", {**box, "focusable": "false"})
    ElementTree.SubElement(root, "title", {"id": title_id}).text = _title(dial)
    _draw_axes(root, plane, dial.gain, dial.forgetting)
    if margin is not None and plane.x_low < margin < plane.x_high:
        _draw_margin(root, plane, margin, dial.margin)
    ends = {each.point.value: _at(plane, each) for each in placed}
    if 0.0 in ends and 1.0 in ends:
        line(root, ends[0.0], ends[1.0], "chord")
    for each in placed:
        _draw_bars(root, plane, each)
    corners = [_at(plane, each) for each in placed]
    path = "L".join(f"{place(x)} {place(y)}" for x, y in corners)
    ElementTree.SubElement(root, "path", {"d": f"M{path}", "class": "line tone-a"})
    for each in placed:
        _draw_point(root, plane, each, dial)
    _draw_names(root, placed, corners, size, dial)
    return ElementTree.tostring(root, encoding="unicode")


def _is_share(key: str) -> bool:
    return key != LOSS


def _scaled(estimate: Estimate, in_points: bool) -> Estimate:
    """Shares in points, other numbers as they are."""
    if not in_points:
        return estimate
    low, high = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
    return Estimate(100 * estimate.number, low, high)


def _plane(placed: Sequence[_Placed], size: Size) -> Plane:
    x_low, x_high = _span(end for each in placed for end in _ends(each.x))
    y_low, y_high = _span(end for each in placed for end in _ends(each.y))
    return Plane(LEFT, size.width - RIGHT, TOP, size.height - BOTTOM, x_low, x_high, y_low, y_high)


def _ends(estimate: Estimate) -> tuple[float, ...]:
    return tuple(end for end in (estimate.low, estimate.number, estimate.high) if end is not None and drawable(end))


def _span(ends: Iterator[float]) -> tuple[float, float]:
    """From the lowest to the highest, zero among them, and some room on both sides."""
    numbers = [0.0, *ends]
    low, high = min(numbers), max(numbers)
    if high - low < SMALLEST_SPAN:
        high = low + 1
    room = PADDING * (high - low)
    return low - room, high + room


def _at(plane: Plane, each: _Placed) -> Point:
    return plane.x(each.x.number), plane.y(each.y.number)


def _title(dial: Dial) -> str:
    assert dial.gain is not None
    assert dial.forgetting is not None
    parts = [
        f"{point.label}: {_words(point, dial.gain, dial.forgetting)}"
        for point in dial.points
        if point.gain is not None and point.forgotten is not None
    ]
    return f"Gain against forgetting by value of the dial. {'; '.join(parts)}"


def _words(point: DialPoint, gain: str, forgetting: ForgettingKey) -> str:
    assert point.gain is not None
    assert point.forgotten is not None
    forgot = forgotten_text(forgetting, point.forgotten.number).removeprefix("+")
    return f"gained {gain_text(gain, point.gain.number)}, {'lost' if forgetting == 'general' else 'moved'} {forgot}"


def _draw_axes(root: ElementTree.Element, plane: Plane, gain: str, forgetting: ForgettingKey) -> None:
    y_ticks = ticks(plane.y_low, plane.y_high)
    for value in y_ticks:
        y = plane.y(value)
        line(root, (plane.left, y), (plane.right, y), "axis" if value == 0 else "grid")
        text(root, plane.left - 8, y + 4, tick_label(value, y_ticks[1] - y_ticks[0]), "end")
    x_ticks = ticks(plane.x_low, plane.x_high, most=10 if plane.right > 600 else 5)
    for value in x_ticks:
        x = plane.x(value)
        line(root, (x, plane.top), (x, plane.bottom), "axis" if value == 0 else "grid")
        text(root, x, plane.bottom + 18, tick_label(value, x_ticks[1] - x_ticks[0]), "middle")
    unit = "points" if forgetting == "general" else "nats a token"
    name = f"forgot → {FORGETTING[forgetting]}, {unit}"
    text(root, (plane.left + plane.right) / 2, plane.bottom + 42, name, "middle name")
    unit = "points" if _is_share(gain) else "nats a token"
    text(root, 6, plane.top - 16, f"gained ↑ {gain_name(gain)}, {unit}", "name")


def _draw_margin(root: ElementTree.Element, plane: Plane, margin: float, share: float) -> None:
    x = plane.x(margin)
    line(root, (x, plane.top), (x, plane.bottom), "margin")
    words = f"margin {percent_change(share).removeprefix('+')}"
    fits = x + 6 + CHARACTER_WIDTH * len(words) < plane.right
    text(root, x + 6 if fits else x - 6, plane.top + 10, words, "margin-name" if fits else "end margin-name")


def _draw_bars(root: ElementTree.Element, plane: Plane, each: _Placed) -> None:
    x, y = _at(plane, each)
    if each.x.low is not None and each.x.high is not None:
        line(root, (plane.x(each.x.low), y), (plane.x(each.x.high), y), "interval")
    if each.y.low is not None and each.y.high is not None:
        line(root, (x, plane.y(each.y.low)), (x, plane.y(each.y.high)), "interval")


def _draw_point(root: ElementTree.Element, plane: Plane, each: _Placed, dial: Dial) -> None:
    assert dial.gain is not None
    assert dial.forgetting is not None
    x, y = _at(plane, each)
    style = "dial-point beyond" if each.point.value > 1 else "dial-point"
    circle = ElementTree.SubElement(
        root, "circle", {"cx": place(x), "cy": place(y), "r": place(RADIUS), "class": style}
    )
    words = f"{each.point.label}: {_words(each.point, dial.gain, dial.forgetting)}"
    ElementTree.SubElement(circle, "title").text = words
    if dial.knee is not None and dial.knee.value == each.point.value:
        ElementTree.SubElement(root, "circle", {"cx": place(x), "cy": place(y), "r": "10", "class": "mark"})


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _draw_names(
    root: ElementTree.Element, placed: Sequence[_Placed], corners: Sequence[Point], size: Size, dial: Dial
) -> None:
    """Write each value beside its point, where it covers no other point or name as far as there is room."""
    taken: list[Box] = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in corners]
    taken += [(x - 1, y - 1, x + 1, y + 1) for first, last in pairwise(corners) for x, y in _along(first, last)]
    knee = None if dial.knee is None else dial.knee.value
    for each, (x, y) in sorted(zip(placed, corners, strict=True), key=lambda pair: pair[0].point.value != knee):
        words = _name(each.point, is_knee=each.point.value == knee)
        boxes = [_box(x + right, y + down, words, ends=ends) for right, down, ends in SIDES]
        chosen = min(range(len(SIDES)), key=lambda side: (_covered(boxes[side], taken, size), side))
        right, down, ends = SIDES[chosen]
        taken.append(boxes[chosen])
        style = "strong knee" if each.point.value == knee else "strong"
        text(root, x + right, y + down, words, f"end {style}" if ends else style)


def _along(first: Point, last: Point) -> Iterator[Point]:
    """Places on a line, about `STRIDE` units apart."""
    count = 1 + round(math.dist(first, last) / STRIDE)
    for number in range(count):
        share = number / count
        yield first[0] + share * (last[0] - first[0]), first[1] + share * (last[1] - first[1])


def _name(point: DialPoint, *, is_knee: bool) -> str:
    named = {0.0: "0 base", 1.0: "1 tuned"}.get(point.value, point.label)
    return f"{named}, knee" if is_knee else named


def _box(x: float, y: float, words: str, *, ends: bool) -> Box:
    width = CHARACTER_WIDTH * len(words)
    left = x - width if ends else x
    return left, y - LABEL_HEIGHT + 2, left + width, y + 2


def _covered(box: Box, taken: Sequence[Box], size: Size) -> float:
    """How much of what is drawn already a name would lie on; beyond the drawing's plane counts most."""
    left, top, right, bottom = box
    outside = left < LEFT or right > size.width - 2 or top < TOP - 14 or bottom > size.height - BOTTOM
    overlaps = [
        max(0.0, min(right, other[2]) - max(left, other[0])) * max(0.0, min(bottom, other[3]) - max(top, other[1]))
        for other in taken
    ]
    return math.fsum(overlaps) + (1e4 if outside else 0.0)
