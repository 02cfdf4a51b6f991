"""Rows as JSON objects and in chunks: nothing of a conversation is lost, and views read what they name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from tests.formats.test_round_trip import FEW, conversations
from tests.support.conversations import TABLE
from tutelage.curate.row_json import conversation_of, row_json, with_metadata
from tutelage.curate.store import Rows, StoredRow, read_table, rows_batch, stored_rows, write_batch
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.types import Address, Conversation, Message, ToolCall

HERE = Address("table.jsonl", 7)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = Conversation(
    (
        Message("system", "be"),
        Message("user", "hi", name="Ann"),
        Message("assistant", None, "why", (ToolCall("look", {"at": None, "n": [1, {"x": 0.5}]}, "c1"),), weight=0.25),
        Message("tool", "seen", tool_call_id="c1"),
        Message("assistant", "yo\u2028"),
    ),
    HERE,
    tools=(TOOL,),
    template_arguments={"enable_thinking": False},
)


def row(number: int, text: str = "x", *, file: str = "a.jsonl") -> StoredRow:
    talk = Conversation((Message("user", f"q{number}"), Message("assistant", text)), Address(file, number))
    return StoredRow(row_json(talk), file, number, "line", number - 1)


def rows_of(folder: Path, *sizes: int) -> Rows:
    number, paths = 0, []
    for index, size in enumerate(sizes):
        chunk = [row(number + step + 1, file=f"{index % 2}.jsonl") for step in range(size)]
        number += size
        paths.append(folder / f"{index}.arrow")
        write_batch(paths[-1], rows_batch(chunk))
    return Rows(paths, source_of_file={"0.jsonl": "even", "1.jsonl": "odd"})


@pytest.mark.parametrize("talk", [*TABLE, CALLED, Conversation((Message("text", "Once\n"),), HERE)])
def test_a_row_comes_back_the_same(talk: Conversation):
    assert conversation_of(row_json(talk), talk.address) == talk


@given(conversations())
@FEW
def test_any_row_comes_back_the_same(messages: list[Message]):
    talk = Conversation(tuple(messages), HERE)
    assert conversation_of(row_json(talk), HERE) == talk


def test_our_reader_makes_the_same_conversation_of_the_object(tmp_path: Path):
    said = [
        row
        for row in (*TABLE, CALLED)
        if all(turn.content or turn.tool_calls or turn.reasoning for turn in row.messages)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(with_metadata(row_json(talk), {"row": 3}) + "\n" for talk in said), encoding="utf-8")
    ledger = Ledger()
    back = list(read([str(path)], ledger=ledger))
    assert [(talk.messages, talk.tools, talk.template_arguments) for talk in back] == [
        (talk.messages, talk.tools, talk.template_arguments) for talk in said
    ]
    assert ledger.notes == [f"{path}: columns kept beside the rows, not trained: metadata"]
    assert {tuple(talk.metadata.items()) for talk in back} == {(("row", 3),)}


def test_metadata_is_a_member_more():
    text = row_json(CALLED)
    assert json.loads(with_metadata(text, {"row": 3})) == json.loads(text) | {"metadata": {"row": 3}}


def test_a_view_reads_what_it_names(tmp_path: Path):
    rows = rows_of(tmp_path, 3, 0, 4, 2)
    assert len(rows) == 9
    assert [rows.stored(index).number for index in range(9)] == list(range(1, 10))
    assert rows.conversation(4).messages[0].content == "q5"
    assert str(rows.address(3)) == "0.jsonl:4"
    assert [stored.number for stored in rows] == list(range(1, 10))
    names, codes = rows.sources
    assert [names[code] for code in codes] == [rows.source(index) for index in range(9)] == ["even"] * 7 + ["odd"] * 2


def test_a_selection_keeps_order_and_copies(tmp_path: Path):
    chosen = rows_of(tmp_path, 3, 4).select(np.array([6, 0, 0, 4])).select(np.array([1, 2, 0]))
    assert [stored.number for stored in chosen] == [1, 1, 7]
    assert chosen.source(2) == "odd"
    assert stored_rows(chosen.batch(1, 3))[1].number == 7


def test_blocks_end_at_either_bound(tmp_path: Path):
    rows = rows_of(tmp_path, 5, 5)
    size = int(rows.characters[0])
    assert rows.blocks(rows=4) == [(0, 4), (4, 8), (8, 10)]
    assert rows.blocks(rows=100, characters=3 * size) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert rows.blocks(rows=100, characters=1)[:2] == [(0, 1), (1, 2)]
    assert rows_of(tmp_path).blocks() == []


def test_a_chunk_that_fails_to_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_paths: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("tutelage.curate.store.publish", refuse)
    with pytest.raises(OSError, match="full"):
        write_batch(tmp_path / "0.arrow", rows_batch([row(1)]))
    assert list(tmp_path.iterdir()) == []


def test_features_of_several_files_are_one_table(tmp_path: Path):
    rows_of(tmp_path, 2, 3)
    table = read_table([tmp_path / "0.arrow", tmp_path / "1.arrow"])
    assert table.column("number").to_pylist() == [1, 2, 3, 4, 5]


def test_rows_are_found_by_their_addresses_in_a_view_of_some(tmp_path: Path):
    rows = rows_of(tmp_path, 3, 4).select(np.array([5, 0, 6, 2, 0]))
    assert rows.find({"0.jsonl:1", "1.jsonl:7", "1.jsonl:4", "0.jsonl:7"}) == {"0.jsonl:1": 1, "1.jsonl:7": 2}
    assert rows.find(set()) == {}
