"""Random conversations, written in each shape and kind of file, come back equal."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.types import Message, ToolCall

HARD = ["\u2028", "\x85", "\r", "\r\n", '"', "'", "\\", "🙂", "\t", ",", "\x0b", "\ufeff", "null", "{", "[", "é"]
# Control characters make up too much of so small a file: it would rightly be refused as binary.
LETTERS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
TEXT = st.lists(st.sampled_from(HARD) | LETTERS, min_size=1, max_size=5).map("".join).filter(str.strip)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), TEXT)
ARGUMENTS = st.dictionaries(TEXT, st.one_of(LEAVES, st.lists(LEAVES, max_size=2)), max_size=3)
CALLS = st.lists(st.builds(ToolCall, TEXT, ARGUMENTS, st.one_of(st.none(), TEXT)), max_size=2).map(tuple)
# A null is no value that a tool's description or a template's argument can mean: it is read as absent.
STATED = st.dictionaries(TEXT, st.one_of(LEAVES.filter(lambda leaf: leaf is not None), st.lists(LEAVES)), max_size=3)
TOOLS = st.lists(
    st.builds(lambda name, more: {"type": "function", "function": {"name": name, "parameters": more}}, TEXT, STATED),
    max_size=2,
)
WEIGHT = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 0.25]))
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assistant() -> st.SearchStrategy[Message]:
    turns = st.builds(
        lambda content, reasoning, calls, weight: Message(
            "assistant", content, reasoning=reasoning, tool_calls=calls, weight=weight
        ),
        st.one_of(st.none(), TEXT), st.one_of(st.none(), TEXT), CALLS, WEIGHT,
    )  # fmt: skip
    return turns.filter(lambda turn: bool(turn.content or turn.reasoning or turn.tool_calls))


def conversations() -> st.SearchStrategy[list[Message]]:
    tool = st.builds(lambda text, call: Message("tool", text, tool_call_id=call), TEXT, st.one_of(st.none(), TEXT))
    rounds = st.lists(
        st.tuples(TEXT.map(lambda text: Message("user", text)), st.lists(tool, max_size=1), assistant()),
        min_size=1, max_size=3,
    )  # fmt: skip
    system = st.lists(TEXT.map(lambda text: Message("system", text)), max_size=1)
    return st.builds(
        lambda start, middle: start + [turn for user, tools, reply in middle for turn in (user, *tools, reply)],
        system,
        rounds,
    )


def as_turn(message: Message, role: str, content: str) -> dict[str, Any]:
    turn: dict[str, Any] = {role: message.role, content: message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for call in message.tool_calls
        ]
    extra = {
        "reasoning_content": message.reasoning,
        "weight": message.weight,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    return turn | {key: value for key, value in extra.items() if value is not None}


def as_rows(many: list[list[Message]], shape: str) -> list[dict[str, Any]]:
    column, role, content = {
        "messages": ("messages", "role", "content"),
        "sharegpt": ("conversations", "from", "value"),
    }[shape]
    return [{column: [as_turn(message, role, content) for message in one]} for one in many]


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def delimited(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
    )
    return buffer.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    cells = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(cells), buffer)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "a.jsonl": json_lines,
    "b.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
    "c.json": lambda rows: json.dumps(rows, ensure_ascii=False, indent=1).encode(),
    "d.json": lambda rows: json.dumps({"data": rows}).encode(),
    "e.csv": delimited,
    "f.parquet": parquet,
}


def read_back(name: str, content: bytes) -> tuple[list[Any], Ledger]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        ledger = Ledger()
        return list(read([str(path)], ledger=ledger)), ledger


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("shape", ["messages", "sharegpt"])
@FEW
@given(many=st.lists(conversations(), min_size=1, max_size=3))
def test_turns(name, shape, many):
    back, ledger = read_back(name, WRITERS[name](as_rows(many, shape)))
    assert not ledger.dropped
    assert [list(one.messages) for one in back] == many


@FEW
@given(many=st.lists(conversations(), min_size=1, max_size=3))
def test_turns_as_parquet_structs(many):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(as_rows(many, "messages")), buffer)
    back, ledger = read_back("a.parquet", buffer.getvalue())
    assert not ledger.dropped
    assert [list(one.messages) for one in back] == many


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("keys", [("instruction", "output"), ("prompt", "completion"), ("question", "answer")])
@FEW
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_prompts(name, keys, pairs):
    back, ledger = read_back(name, WRITERS[name]([dict(zip(keys, pair, strict=True)) for pair in pairs]))
    assert not ledger.dropped
    assert [tuple(message.content for message in one.messages) for one in back] == pairs


@pytest.mark.parametrize("name", WRITERS)
@FEW
@given(documents=st.lists(TEXT, min_size=1, max_size=4))
def test_documents(name, documents):
    back, _ = read_back(name, WRITERS[name]([{"text": text} for text in documents]))
    assert [one.messages for one in back] == [(Message("text", text),) for text in documents]


@FEW
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_tabs(pairs):
    clean = [tuple("".join(part.split("\t")).replace("\n", "").replace("\r", "") for part in pair) for pair in pairs]
    clean = [pair for pair in clean if all(part.strip() for part in pair)]
    lines = ["prompt\tcompletion", *("\t".join(pair) for pair in clean)]
    if not clean:
        return
    back, _ = read_back("a.tsv", "\n".join(lines).encode())
    assert [tuple(message.content for message in one.messages) for one in back] == clean


@FEW
@given(tools=TOOLS, more=STATED)
def test_tools_and_template_arguments(tools, more):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"messages": turns, "tools": tools, "chat_template_kwargs": more}
    [one], _ = read_back("a.jsonl", json_lines([row]))
    assert list(one.tools) == tools
    assert one.template_arguments == more


JSON_VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type"]),
    inner, max_size=4,
), max_leaves=12)  # fmt: skip
ROWS = st.dictionaries(
    st.sampled_from(["messages", "conversations", "prompt", "completion", "instruction", "output", "input", "text",
                     "tools", "history", "system", "images", "chat_template_kwargs"]),
    JSON_VALUES, max_size=5,
)  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "b.json", "c.csv", "d.tsv", "e.txt", "f"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.one_of(ROWS, JSON_VALUES), min_size=1, max_size=4),
    noise=st.binary(max_size=12),
    at=st.floats(0, 1),
)
def test_the_books_balance_whatever_is_in_the_file(name, rows, noise, at):
    """Any file is read or refused with a DataError, and every row entered is given or dropped."""
    content = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    place = int(len(content) * at)
    content = content[:place] + noise + content[place:]
    try:
        back, ledger = read_back(name, content)
    except DataError:
        return
    assert ledger.rows_in == len(back) + ledger.rows_dropped
    assert ledger.rows_in > 0
