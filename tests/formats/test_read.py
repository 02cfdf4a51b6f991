from __future__ import annotations

import json

import pytest

from tutelage.errors import DataError
from tutelage.formats import SHAPES, describe, read
from tutelage.formats.names import SHAPES_BY_PRIORITY
from tutelage.ledger import Ledger


def lines(count: int) -> str:
    return "".join(json.dumps({"instruction": f"q{number}", "output": "a"}) + "\n" for number in range(count))


def test_shapes_are_named_once():
    assert SHAPES == ("alpaca", "sharegpt", "messages", "prompt_completion", "text")
    assert set(SHAPES_BY_PRIORITY) == set(SHAPES)


def test_max_rows_counts_over_all_files(put, load):
    result = load(put("a.jsonl", lines(3)), put("b.jsonl", "{\n" + lines(5)), max_rows=5)
    assert result.ledger.rows_in == 5
    assert [text[0][1] for text in result.texts] == ["q0", "q1", "q2", "q0"]
    assert not load(put("a.jsonl", lines(3)), max_rows=0).conversations


def test_rows_are_not_kept_here(put):
    ledger = Ledger()
    list(read([str(put("a.jsonl", lines(3)))], ledger=ledger))
    assert (ledger.rows_in, ledger.rows_kept) == (3, 0)


def test_strict_stops_at_the_first_drop(put):
    path = put("a.jsonl", lines(1) + "oops\n")
    with pytest.raises(DataError, match="bad_json") as caught:
        list(read([str(path)], ledger=Ledger(strict=True)))
    assert str(caught.value.where).endswith("a.jsonl:2")


def test_a_bad_file_is_refused_before_any_row_is_read(put):
    with pytest.raises(DataError, match="empty"):
        read([str(put("a.jsonl", lines(1))), str(put("b.jsonl", b""))], ledger=Ledger())


def test_describe_changes_nothing_and_says_what_is_there(put):
    first = put("a.json", lines(3) + "oops\n" + json.dumps({"text": "t", "id": 1}))
    second = put("b.csv", "frage,antwort\nq,a\n")
    summary = describe([str(first), str(second)])
    one, two = summary.files
    assert (one.kind, one.rows, one.shape) == ("json_lines", 5, "alpaca")
    assert one.shapes == {"alpaca": 3, "text": 1}
    assert one.keys == {"instruction": 3, "output": 3, "text": 1, "id": 1}
    assert one.broken == {"bad_json": 1}
    assert any("mixed" in note for note in one.notes)
    assert (two.rows, two.shape, two.keys) == (1, None, {"frage": 1, "antwort": 1})
    assert summary.rows == 6
    assert summary.keys["frage"] == 1
    assert any("read as such" in note for note in summary.notes)
    named = describe([str(second)], columns={"prompt": "frage", "response": "antwort"})
    assert named.files[0].shape == "prompt_completion"
