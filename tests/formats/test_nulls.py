"""Nulls that Arrow filled in are read as absent, by every door alike."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.formats.nulls import is_filled, without_filled_nulls


def tool(name, **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


NUMBER, TEXT = {"type": "integer"}, {"type": "string"}
FILLED_TOOLS = [tool("find_room", floor=NUMBER, text=None), tool("find_text", floor=None, text=TEXT)]
TOOLS = [tool("find_room", floor=NUMBER), tool("find_text", text=TEXT)]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": "go", "tool_calls": None},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
            },
        ],
        "tools": FILLED_TOOLS,
        "chat_template_kwargs": {"enable_thinking": None, "now": "noon"},
    }
    for name, arguments in (("find_room", {"floor": 3, "text": None}), ("find_text", {"floor": None, "text": "x"}))
]


def as_lines(path):
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def as_document(path):
    path.write_text(json.dumps(ROWS))


def as_cells(path):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([list(ROWS[0]), *([json.dumps(cell) for cell in row.values()] for row in ROWS)])
    path.write_text(buffer.getvalue())


def as_structs(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def as_texts(path):
    pq.write_table(pa.Table.from_pylist([{key: json.dumps(cell) for key, cell in row.items()} for row in ROWS]), path)


DOORS = {"a.jsonl": as_lines, "a.json": as_document, "a.csv": as_cells, "a.parquet": as_structs, "b.parquet": as_texts}


@pytest.mark.parametrize("name", DOORS)
def test_r13_every_door_reads_filled_nulls_as_absent(load, tmp_path, name):
    DOORS[name](tmp_path / name)
    result = load(tmp_path / name)
    assert [row.messages[1].tool_calls[0].arguments for row in result.conversations] == [{"floor": 3}, {"text": "x"}]
    assert all(list(row.tools) == TOOLS for row in result.conversations)
    assert all(row.template_arguments == {"now": "noon"} for row in result.conversations)
    about = [note for note in result.ledger.notes if "read as absent" in note]
    assert len(about) == 3
    assert len(set(about)) == 3


def arguments_of(put, load, arguments, tools):
    call = {"function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]
    result = load(put("a.jsonl", json.dumps({"messages": turns, "tools": tools})))
    return result.conversations[0].messages[1].tool_calls[0].arguments


@pytest.mark.parametrize("written", [dict, json.dumps])
@pytest.mark.parametrize(
    "definition",
    [{"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, {"enum": ["a", None]}, {},
     {"type": "string", "nullable": True}, {"type": "string", "default": None}, {"description": "any"}],
)  # fmt: skip
def test_r13_a_null_that_the_tools_schema_takes_is_meant(put, load, definition, written):
    assert arguments_of(put, load, written({"x": None, "y": None}), [tool("f", x=definition)]) == {"x": None}


def test_r13_a_null_that_no_schema_takes_is_absent(put, load):
    for given in ({"x": None, "y": 1}, '{"x": null, "y": 1}'):
        assert arguments_of(put, load, given, [tool("f", y=NUMBER)]) == {"y": 1}
    assert arguments_of(put, load, {"x": {"y": None}, "z": None}, [tool("f", x={"type": "object"})]) == {"x": {}}
    # Without a schema, JSON text is as its author wrote it; an object may have gone through Arrow.
    assert arguments_of(put, load, '{"x": null}', None) == {"x": None}
    assert arguments_of(put, load, {"x": None, "y": [None]}, None) == {"y": [None]}


@pytest.mark.parametrize("written", [dict, json.dumps])
def test_r13_a_null_stays_where_the_schema_has_the_property(put, load, written):
    for definition in (TEXT, {"enum": ["a"]}, {"type": "object", "properties": {}}):
        given = written({"x": None, "y": 1, "z": None})
        assert arguments_of(put, load, given, [tool("f", x=definition, y=NUMBER, z=None)]) == {"x": None, "y": 1}


@pytest.mark.parametrize("listed", [{"y": NUMBER}, None])
def test_r13_further_properties_may_have_a_schema_that_takes_null(put, load, listed):
    def read(given, further):
        schema = {"type": "object", "additionalProperties": further} | ({"properties": listed} if listed else {})
        return arguments_of(put, load, given, [{"name": "f", "parameters": schema}])

    given = {"x": None, "y": 1}
    assert read(given, {"type": ["string", "null"]}) == given
    assert read(given, TEXT) == {"y": 1}
    assert read(given, True) == {"y": 1}
    assert read(json.dumps(given), True) == given  # nothing is filled into text
    inside = {"type": "object", "properties": {"a": TEXT}}
    assert read({"x": {"a": None, "b": None}}, inside) == {"x": {"a": None}}


def test_r13_nulls_inside_arguments_are_held_to_the_schema_of_their_place():
    item = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    schema = {"properties": {"many": {"type": "array", "items": {"$ref": "#/$defs/item"}}}, "$defs": {"item": item}}
    given = {"many": [{"a": None, "b": None}]}
    assert without_filled_nulls(given, schema, as_written=False) == {"many": [{"a": None}]}
    circle = {"properties": {"x": {"$ref": "#/properties/x"}}}
    assert without_filled_nulls({"x": {"y": None}}, circle, as_written=False) == {"x": {}}
    odd = {"properties": {"x": 3}, "required": True, "anyOf": 5}
    assert without_filled_nulls({"x": None}, odd, as_written=True) == {}


def test_r13_a_default_of_null_is_part_of_a_description(put, load):
    optional = tool("f", x={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, default=TEXT)
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": [optional]}
    result = load(put("a.jsonl", json.dumps(row)))
    assert result.conversations[0].tools == (optional,)
    assert not result.ledger.notes
    assert is_filled(tool("f", default=None))
    assert is_filled([tool("f", x={"type": "string", "enum": None})])


def test_tools_that_differ_in_a_type_alone_are_told_apart(put, load):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    many = [[tool("f", x={"default": value})] for value in (1, True, 1.0, 0, False)]
    result = load(put("a.jsonl", "".join(json.dumps({"messages": turns, "tools": tools}) + "\n" for tools in many)))
    defaults = [row.tools[0]["function"]["parameters"]["properties"]["x"]["default"] for row in result.conversations]
    assert [repr(value) for value in defaults] == ["1", "True", "1.0", "0", "False"]
