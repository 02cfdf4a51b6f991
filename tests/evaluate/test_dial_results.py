"""`dial.json` keeps each value as it ends, and only what was measured on the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutelage.evaluate.dial_results import DialMeasure, read_dial_measures, save_dial_measure
from tutelage.evaluate.suite import Metrics
from tutelage.runs.divergence import DivergenceMeasure

MEASURE = DialMeasure(
    Metrics(0.5, 1.0, 1.25, None, {"item": 0.75}, {"rouge_l": 0.25}),
    {"exact_match": (True, False), "field item": (False, None), "score rouge_l": (0.25, None)},
    (1.5, 1.0),
    (10, 10),
    {"task": DivergenceMeasure(0.1, 0.05, 0.2, 2, 9, None, True)},
    {"task": (0.4, 0.5)},
    "abc",
    {"general": ("passage 1", "passage 1")},
)


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    path, notes = tmp_path / "dial.json", list[str]()
    for value in (1.0, 0.25, 0.0):
        save_dial_measure(path, "key", value, MEASURE)

    assert read_dial_measures(path, "key", log=notes.append) == dict.fromkeys(("0", "0.25", "1"), MEASURE)
    assert list(json.loads(path.read_text(encoding="utf-8"))["values"]) == ["0", "0.25", "1"]
    assert notes == []
    assert read_dial_measures(tmp_path / "none.json", "key", log=notes.append) == {}
    assert notes == []


def test_what_was_measured_on_something_else_is_left_out(tmp_path: Path) -> None:
    path, notes = tmp_path / "dial.json", list[str]()
    save_dial_measure(path, "old", 0.5, MEASURE)

    assert read_dial_measures(path, "new", log=notes.append) == {}
    assert "other data, settings, weights or versions" in notes[0]
    save_dial_measure(path, "new", 1.0, MEASURE)
    assert set(read_dial_measures(path, "new", log=notes.append)) == {"1"}


@pytest.mark.parametrize("damage", ["half", "other", "no entry"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: str) -> None:
    path, notes = tmp_path / "dial.json", list[str]()
    save_dial_measure(path, "key", 0.5, MEASURE)
    text = path.read_text(encoding="utf-8")
    path.write_text({"half": text[:80], "other": text.replace("1.25", "1.26"), "no entry": "[]"}[damage], "utf-8")

    assert read_dial_measures(path, "key", log=notes.append) == {}
    assert "damaged" in notes[0]
    save_dial_measure(path, "key", 0.5, MEASURE)
    assert read_dial_measures(path, "key", log=notes.append) == {"0.5": MEASURE}
