from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compared_replies import write_rows
from tutelage.errors import DataError, SourceNotFoundError
from tutelage.evaluate.pairwise.reply_files import read_reply_file


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", "reply": "Yes."},
        {"prompt": "Hi?", "response": "Yes.", "model": "m", "score": 3},
        {"prompt": [{"role": "user", "content": "Hi?"}], "completion": "Yes."},
        {"messages": [{"role": "user", "content": "Hi?"}], "reply": "Yes."},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]},
    ],
)
def test_each_spelling_is_the_same_row(row: dict[str, object], tmp_path: Path):
    (answered,) = read_reply_file(write_rows(tmp_path / "a.jsonl", [row]), name="a").rows
    assert [(turn.role, turn.content) for turn in answered.prompt] == [("user", "Hi?")]
    assert answered.reply == "Yes."


def test_an_empty_reply_is_a_reply(tmp_path: Path):
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "Hi?", "reply": ""}])
    assert read_reply_file(path, name="a").rows[0].reply == ""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"prompt": "Hi?"}', "no reply"),
        ('{"messages": [{"role": "user", "content": "Hi?"}]}', "no reply"),
        ('{"messages": [{"role": "assistant", "content": "Yes."}]}', "no reply"),
        ('{"reply": "Yes."}', "no prompt"),
        ('{"prompt": [], "reply": "Yes."}', "no prompt"),
        ('{"prompt": "Hi?", "reply": 3}', "reply"),
        ('{"messages": [{"role": "boss", "content": "Hi?"}], "reply": "x"}', "messages.0.role"),
        ('{"prompt": "Hi?", "reply": "Yes', "JSON"),
        ("[1, 2]", "object"),
    ],
)
def test_a_bad_line_is_named(line: str, found: str, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "ok", "reply": "ok"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_reply_file(path, name="a")
    assert caught.value.where == f"{path}:3"
    assert found in str(caught.value.found)


def test_no_file_and_no_line_are_told(tmp_path: Path):
    with pytest.raises(SourceNotFoundError):
        read_reply_file(tmp_path / "a.jsonl", name="a")
    (tmp_path / "b.jsonl").write_bytes(b"\n\n")
    with pytest.raises(DataError, match="empty"):
        read_reply_file(tmp_path / "b.jsonl", name="b")
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        read_reply_file(tmp_path / "c.jsonl", name="c")
