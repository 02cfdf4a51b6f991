"""The page of the dial: its figures, a drawing that is well-formed and covers nothing, and no foreign words run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tutelage.errors import ConfigError, SaveError
from tutelage.report.dial import Dial, DialPoint, DialRow, Estimate, ForgettingKey, Knee
from tutelage.report.html.dial_chart import NARROW, WIDE, dial_drawing
from tutelage.report.html.dial_page import require_page_place, write_dial_page
from tutelage.runs.divergence import DivergenceMeasure
from tutelage.runs.uncertainty import Range, ShareUncertainty, Uncertainty

HOSTILE = '</title><script>alert(1)</script>" onload="alert(2) {{ 7*7 }} <img src=x>'
GAINED = {0.0: 0.0, 0.25: 0.45, 0.5: 0.75, 0.75: 0.85, 1.0: 0.9, 1.25: 0.8}
LOST = {0.0: 0.0, 0.25: 0.01, 0.5: 0.06, 0.75: 0.13, 1.0: 0.25, 1.25: 0.45}


def around(number: float, half: float) -> Estimate:
    return Estimate(number, number - half, number + half) if number else Estimate(0.0)


def dial_with(
    gained: Mapping[float, float] = GAINED,
    lost: Mapping[float, float] = LOST,
    *,
    gain: str | None = "exact_match",
    forgetting: ForgettingKey | None = "general",
) -> Dial:
    points = tuple(
        DialPoint(
            value, around(gained[value], 0.1) if gain else None, around(lost[value], 0.03) if forgetting else None
        )
        for value in gained
    )
    knee = Knee(0.5, 0.8, 0.2, Estimate(0.6, 0.4, 0.8))
    return Dial(gain, forgetting, points, knee, "", 0.03, points[1] if forgetting == "general" else None)


def rows_of(dial: Dial, field: str = "item") -> dict[str, DialRow]:
    made = {}
    for point in dial.points:
        share = ShareUncertainty(80, None, Range(0.31, 0.52))
        metrics: dict[str, Any] = {
            "exact_match": 0.4,
            "heldout_loss": 1.25,
            "general": None,
            "fields": {field: 0.5},
            "scores": {"rouge_l": 0.7},
        }
        uncertainty = Uncertainty(0.95, 0.05, 0.8, {"exact_match": share}, {field: share})
        made[point.label] = DialRow(
            metrics, uncertainty, {"task": DivergenceMeasure(0.125, 0.1, 0.2, 3, 30, 0.0, True)}
        )
    return made


def texts(drawing: str) -> list[tuple[float, float, str, str]]:
    """Left end, base line, words and class of each text, about as wide as it is drawn."""
    found = []
    for element in ElementTree.fromstring(drawing).iter("text"):
        words, style = element.text or "", element.get("class", "")
        x, width = float(element.get("x", "0")), 7.2 * len(words)
        left = x - width if "end" in style.split() else x - width / 2 if "middle" in style.split() else x
        found.append((left, float(element.get("y", "0")), words, style))
    return found


def test_the_page_holds_all_figures_and_its_own_style_alone(tmp_path: Path, read_page: Callable[[Path], Any]) -> None:
    dial = dial_with()
    path = write_dial_page(tmp_path, "tiny", dial, rows_of(dial))
    page = read_page(path)
    text = page.text.replace("\u00a0", " ").replace("\u2212", "-")

    assert path == tmp_path / "dial.html"
    for words in (
        "Knee at 0.5: 80.0 % of the gain",
        "+75.0 points",
        "6.0 points",
        "+65…+85",
        "31–52",
        "0.100 to 0.200",
    ):
        assert words in text
    values = [
        attributes["data-value"] for tag, attributes in page.elements if tag == "tr" and "data-value" in attributes
    ]
    assert values == ["0", "0.25", "0.5", "0.75", "1", "1.25"]
    marked = [attributes for tag, attributes in page.elements if tag == "tr" and attributes.get("class") == "knee"]
    assert [attributes["data-value"] for attributes in marked] == ["0.5"]
    assert not any(tag in ("script", "img", "link", "iframe") for tag, _ in page.elements)
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert all(name != "style" for name in attributes), "the policy would not let it"
        assert str(attributes.get("href", "#")).startswith("#")


def test_foreign_words_stay_words(tmp_path: Path, read_page: Callable[[Path], Any]) -> None:
    dial = dial_with()
    page = read_page(write_dial_page(tmp_path, HOSTILE, dial, rows_of(dial, field=HOSTILE)))

    assert page.text.count("alert(1)") == 3, "title, heading and column"
    assert "{{ 7*7 }}" in page.text
    assert not any(tag in ("script", "img") for tag, _ in page.elements)


def test_no_file_but_our_own_page_is_replaced(tmp_path: Path) -> None:
    dial = dial_with()
    path = write_dial_page(tmp_path, "tiny", dial, rows_of(dial))
    first = path.read_bytes()
    write_dial_page(tmp_path, "tiny", dial, rows_of(dial))
    assert path.read_bytes() == first, "the same figures give the same page"
    path.write_text("<html>mine</html>", encoding="utf-8")

    for attempt in (lambda: require_page_place(tmp_path), lambda: write_dial_page(tmp_path, "a", dial, rows_of(dial))):
        with pytest.raises(ConfigError, match="no page of ours"):
            attempt()
    assert path.read_text(encoding="utf-8") == "<html>mine</html>"
    with pytest.raises(SaveError, match="could not be written"):
        write_dial_page(tmp_path / "nowhere", "tiny", dial, rows_of(dial))


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_points_stand_where_their_figures_say(size: Any) -> None:
    root = ElementTree.fromstring(dial_drawing(dial_with(), size))
    circles = [circle for circle in root.iter("circle") if "dial-point" in circle.get("class", "")]
    xs, ys = ([float(circle.get(name, "nan")) for circle in circles] for name in ("cx", "cy"))

    assert xs == sorted(xs), "more was lost further right"
    assert ys[4] < ys[3] < ys[2] < ys[1] < ys[0], "more was gained further up"
    steps = [(x - xs[0]) / (xs[4] - xs[0]) for x in xs]
    assert steps == pytest.approx([lost / 0.25 for lost in LOST.values()], abs=2e-3)
    rises = [(ys[0] - y) / (ys[0] - ys[4]) for y in ys]
    assert rises == pytest.approx([gained / 0.9 for gained in GAINED.values()], abs=2e-3)
    assert [circle.get("class") for circle in circles][-1] == "dial-point beyond"
    (mark,) = [circle for circle in root.iter("circle") if circle.get("class") == "mark"]
    assert (float(mark.get("cx", "0")), float(mark.get("cy", "0"))) == (xs[2], ys[2])
    assert sum(1 for line in root.iter("line") if line.get("class") == "interval") == 10
    assert "0.5: gained +75.0" in (root.findtext("title") or "").replace("\u00a0", " ")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_names_cover_no_other_name_and_stay_inside(size: Any) -> None:
    many = {number / 10: 1 - (1 - number / 10) ** 2 for number in range(11)}
    moved = {value: 0.4 * value**2 for value in many}
    drawings = [
        dial_drawing(dial_with(), size),
        dial_drawing(dial_with(many, moved, gain="heldout_loss", forgetting="kl_task"), size),
    ]
    for drawing in drawings:
        names = [(left, y, words) for left, y, words, style in texts(drawing) if "strong" in style]
        assert len(names) >= 6
        for number, (left, y, words) in enumerate(names):
            assert left >= 0
            assert left + 7.2 * len(words) <= size.width
            for other_left, other_y, other in names[number + 1 :]:
                apart = left + 7.2 * len(words) <= other_left or other_left + 7.2 * len(other) <= left
                assert apart or abs(y - other_y) >= 12, (words, other)


def test_what_cannot_be_drawn_is_said(tmp_path: Path, read_page: Callable[[Path], Any]) -> None:
    for dial, words in (
        (dial_with(gain=None), "nothing was measured that counts as gain"),
        (dial_with(forgetting=None), "nothing was measured that counts as forgetting"),
        (dial_with({0.0: 0.0, 1.0: float("nan")}), "no value but one has a finite place"),
    ):
        assert dial_drawing(dial, WIDE) == ""
        assert words in read_page(write_dial_page(tmp_path, "tiny", dial, rows_of(dial))).text


def test_points_on_one_spot_can_be_drawn() -> None:
    same = dict.fromkeys((0.0, 0.5, 1.0), 0.0)
    drawing = dial_drawing(dial_with(same, same), WIDE)

    assert len(re.findall("dial-point", drawing)) == 3
