from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import DataError
from tutelage.formats.prompts import PromptRow, read_prompts
from tutelage.ledger import Ledger
from tutelage.types import Message

USER = {"role": "user", "content": "u"}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


def read(path: Path, text: str, **how: Any) -> tuple[list[PromptRow], Ledger]:
    path.write_text(text, "utf-8")
    ledger = Ledger()
    rows = list(read_prompts([str(path)], ledger=ledger, **how))
    ledger.check()
    return rows, ledger


@pytest.mark.parametrize(
    ("row", "last", "reply"),
    [
        ({"prompt": "hi"}, "hi", None),
        ({"prompt": "hi", "completion": ""}, "hi", None),
        ({"prompt": "hi", "completion": "hey"}, "hi", "hey"),
        ({"prompt": [USER]}, "u", None),
        ({"question": "hi"}, "hi", None),
        ({"instruction": "do", "input": "this"}, "do\n\nthis", None),
        ({"instruction": "do", "input": "", "output": "done"}, "do", "done"),
        ({"messages": [USER]}, "u", None),
        ({"messages": json.dumps([USER])}, "u", None),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, "u", "a"),
        ({"messages": [USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}]}, "v", None),
        ({"conversations": [{"from": "human", "value": "u"}]}, "u", None),
        ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, "hi", "good"),
        ({"text": "a paragraph"}, "a paragraph", None),
    ],
)
def test_rows_of_any_shape_with_and_without_their_reply(
    tmp_path: Path, row: dict[str, Any], last: str, reply: str | None
):
    (read_row,), _ = read(tmp_path / "rows.jsonl", json.dumps(row))
    assert (read_row.messages[-1], read_row.reply) == (Message("user", last), reply)


def test_a_file_of_some_rows_with_and_some_without_keeps_their_order(tmp_path: Path):
    rows, ledger = read(tmp_path / "rows.csv", "prompt,response\nq1,a1\nq2,\n")
    assert [(row.messages[-1].content, row.reply) for row in rows] == [("q1", "a1"), ("q2", None)]
    assert not [note for note in ledger.notes if "output" in note]


def test_paragraphs_columns_and_tool_calls(tmp_path: Path):
    rows, _ = read(tmp_path / "rows.txt", "one\n\ntwo\nlines\n")
    assert [row.messages[0].content for row in rows] == ["one", "two\nlines"]
    (row,), _ = read(tmp_path / "rows.jsonl", json.dumps({"ask": "what"}), columns={"prompt": "ask"})
    assert row.messages == (Message("user", "what"),)
    rows, ledger = read(tmp_path / "calls.jsonl", json.dumps({"messages": [USER, CALL]}))
    assert rows == []
    assert ledger.as_dict()["dropped"] == {"reply_is_calls": 1}


def test_a_long_file_is_read_twice_with_the_same_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tutelage.formats.survey.KEPT_CHARACTERS", 100)
    text = "\n".join(json.dumps({"prompt": f"question {number}"}) for number in range(50))
    rows, _ = read(tmp_path / "rows.jsonl", text)
    assert [row.reply for row in rows] == [None] * 50


def test_rows_that_ask_nothing_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="No row fits a known shape"):
        read(tmp_path / "rows.jsonl", json.dumps({"completion": "an answer to nothing"}))
