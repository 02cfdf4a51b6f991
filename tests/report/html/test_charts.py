from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.html.charts import NARROW, WIDE, Chart, Mark, Series, draw, tick_label, ticks


def chart(points, style="line", **more):
    return Chart("loss", "Loss by step", "loss", (Series("training", tuple(points), style, "a"),), **more)


finite = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)


@given(finite, st.floats(min_value=1e-9, max_value=1e12))
def test_ticks_are_few_even_and_inside(low, span):
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    slack = 1e-6 * (high - low)
    assert all(low - slack <= value <= high + slack for value in found)


def test_ticks_are_round():
    assert ticks(0, 2.4) == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert ticks(1, 4, whole=True) == [1, 2, 3, 4]
    assert [tick_label(value, 5e-5) for value in ticks(0, 2e-4, most=4)] == ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]


@pytest.mark.parametrize(
    ("value", "stride", "expected"),
    [(1500, 500, "1,500"), (0.25, 0.05, "0.25"), (-1, 1, "\u22121"), (2e6, 1e6, "2e6"), (0, 1e-9, "0")],
)
def test_tick_labels_have_the_digits_their_neighbours_need(value, stride, expected):
    assert tick_label(value, stride) == expected


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats()), min_size=1, max_size=20))
def test_any_values_give_well_formed_drawings_inside_their_box(values):
    points = [(float(x), y) for x, y in sorted(values)]
    if not any(math.isfinite(y) and abs(y) < 1e100 for _, y in points):
        with pytest.raises(ValueError, match="no finite point"):
            draw(chart(points), WIDE)
        return
    for style in ("line", "dots", "line-dots"):
        root = ElementTree.fromstring(draw(chart(points, style), NARROW))
        for circle in root.iter("circle"):
            assert 0 <= float(circle.get("cx")) <= NARROW.width
            assert 0 <= float(circle.get("cy")) <= NARROW.height
        for path in root.iter("path"):
            assert "nan" not in path.get("d")
            assert "inf" not in path.get("d")


def test_a_break_in_the_values_lifts_the_pen():
    root = ElementTree.fromstring(draw(chart([(1, 1.0), (2, math.nan), (3, 2.0), (4, 1.0)]), WIDE))
    assert root.find("path").get("d").count("M") == 2


def test_the_title_can_be_read_aloud_and_names_are_escaped():
    one = Chart("loss", 'a "<b>" & c', "y", (Series("<script>", ((1, 1.0),), "dots", "a", ("<t>",)),))
    text = draw(one, WIDE)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.find("title").get("id") == root.get("aria-labelledby")
    assert root.find("title").text == 'a "<b>" & c'
    assert "<script>" not in text


def test_legend_marks_and_lost_steps_are_drawn():
    series = (Series("one", ((1, 1.0), (3, 2.0)), "line", "a"), Series("two", ((1, 2.0),), "line-dots", "b"))
    root = ElementTree.fromstring(
        draw(Chart("loss", "t", "y", series, marks=(Mark(3, 2.0, "best: step 3"),), lost_xs=(2.0,)), WIDE)
    )
    texts = [element.text for element in root.iter("text")]
    assert {"one", "two", "best: step 3", "×", "step", "y"} <= set(texts)


def test_a_long_legend_breaks_into_lines():
    series = tuple(Series(f"a rather long name {index}", ((1, 1.0),), "line", "a") for index in range(4))
    root = ElementTree.fromstring(draw(Chart("loss", "t", "y", series), NARROW))
    heights = {text.get("y") for text in root.iter("text") if text.get("class") == "legend"}
    assert len(heights) > 1
