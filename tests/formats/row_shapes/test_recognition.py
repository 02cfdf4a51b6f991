"""How a shape is recognized, whatever the shape."""

from __future__ import annotations

import json

import pytest

from tests.formats.row_shapes.conftest import ROWS
from tutelage.errors import ConfigError, DataError
from tutelage.formats import SHAPES, describe, row_shapes
from tutelage.formats.row_shapes import recognition
from tutelage.formats.row_shapes.catalog import FAMILIES, function_of
from tutelage.formats.row_shapes.conditions import condition

GEMINI = {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]}
ALPACA = {"instruction": "q", "output": "a"}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", row_shapes())
def test_each_shape_says_what_becomes_of_it(name):
    shape = row_shapes()[name]
    assert name not in {*SHAPES, "auto"}
    assert shape.family in FAMILIES
    assert sum(map(bool, (shape.reader, shape.base, shape.refuse, shape.gather))) == 1
    assert bool(shape.refuse) == bool(shape.fix)
    assert shape.base in {"", *SHAPES}
    assert shape.trap
    assert shape.source
    assert (ROWS / f"{name}.jsonl").is_file()
    for function in filter(None, (shape.reader, shape.gather)):
        assert callable(function_of(shape.family, function))
    assert shape.needs or shape.base


def test_the_note_says_which_shape_won_and_by_what(put, load):
    [note] = load(put("a.jsonl", lines(GEMINI, GEMINI))).ledger.notes
    assert note.endswith(
        "a.jsonl is read as vertex_gemini (Vertex AI (Gemini) tuning file): `contents` are as it has them "
        "in 2 of 2 rows"
    )


def test_a_mixed_file_is_read_row_by_row(put, load):
    result = load(put("a.jsonl", lines(GEMINI, ALPACA, GEMINI)))
    assert result.texts == [[("user", "q"), ("assistant", "a")]] * 3
    assert any("2 rows are vertex_gemini, 1 alpaca" in note for note in result.ledger.notes)
    result = load(put("b.jsonl", lines(GEMINI, ALPACA, ALPACA)))
    assert result.texts == [[("user", "q"), ("assistant", "a")]] * 3


def test_a_row_of_other_types_is_dropped_and_named(put, load):
    result = load(put("a.jsonl", lines(GEMINI, GEMINI, {"contents": "q"}, {"contents": None})))
    assert len(result.conversations) == 2
    assert dict(result.ledger.dropped) == {"wrong_shape": 2}
    assert "`contents: list`" in result.ledger.drop_samples["wrong_shape"][0].detail


def test_a_shape_can_be_asked_for_by_its_name(put, load):
    path = put("a.jsonl", lines(GEMINI, ALPACA))
    assert len(load(path, shape="vertex_gemini").conversations) == 1
    with pytest.raises(DataError, match="No row fits the shape 'chatgpt_export'"):
        load(path, shape="chatgpt_export")
    with pytest.raises(ConfigError, match="nearest: 'vertex_gemini'"):
        load(path, shape="vertex_gemnii")
    with pytest.raises(ConfigError, match="Columns cannot be named"):
        load(path, shape="vertex_gemini", columns={"messages": "contents"})


def test_only_the_first_rows_and_those_with_new_columns_are_examined(put, load, monkeypatch):
    monkeypatch.setattr(recognition, "SAMPLED_ROWS", 2)
    seen = []
    fits = recognition.RowShape.fits
    monkeypatch.setattr(recognition.RowShape, "fits", lambda shape, row: seen.append(shape.name) or fits(shape, row))
    result = load(put("a.jsonl", lines(*[GEMINI] * 5, GEMINI | {"x": 1})))
    assert len(result.conversations) == 6
    assert seen.count("vertex_gemini") == 3


def test_a_row_that_is_one_object_is_no_wrapper_of_its_list(put, load):
    assert len(load(put("a.json", json.dumps(GEMINI, indent=1))).conversations) == 1


def test_describe_names_the_shape(put):
    [file] = describe([str(put("a.jsonl", lines(GEMINI, ALPACA, GEMINI)))]).files
    assert (file.shape, dict(file.shapes)) == ("vertex_gemini", {"vertex_gemini": 2, "alpaca": 1})


@pytest.mark.parametrize(
    ("text", "row", "holds"),
    [
        ("a", {"a": 0}, True),
        ("a", {"a": None}, False),
        ("a: number", {"a": True}, False),
        ("a.b: text", {"a": {"b": "x"}}, True),
        ("a.b: text", {"a": "b"}, False),
        ("a[].b: text", {"a": [{"b": "x"}, {"b": 1}]}, False),
        ("a[?].b: text", {"a": [{"b": "x"}, {"b": 1}]}, True),
        ("a[].b", {"a": []}, False),
        ("a[][]: text", {"a": [["x"], ["y"]]}, True),
        ("a{}.b: bool", {"a": {"k": {"b": True}}}, True),
        ("a{?}: list", {"a": {"k": 1, "l": []}}, True),
        ('"a.b"[].c: text | number', {"a.b": [{"c": 1}, {"c": "x"}]}, True),
        ('a: "x" | "y"', {"a": "y"}, True),
        ('a: "x" | "y"', {"a": "z"}, False),
        ("a: json", {"a": ' [{"b": 1}]'}, True),
        ("a: json", {"a": "[1"}, False),
        ("a: ids", {"a": [1, 2]}, True),
        ("a: ids", {"a": [1.5]}, False),
        ("a: text ~ ^\\s*Human:", {"a": "\n\nHuman: q"}, True),
    ],
)
def test_conditions(text, row, holds):
    assert condition(text).holds(row) is holds


def test_rows_that_are_read_together_need_a_file_of_their_own(put, load):
    turn = {"message_id": "1", "message_tree_id": "t", "text": "q", "role": "prompter"}
    result = load(put("a.jsonl", lines(ALPACA, ALPACA, turn)))
    assert len(result.conversations) == 2
    assert "a file of their own" in result.ledger.drop_samples["wrong_shape"][0].detail
