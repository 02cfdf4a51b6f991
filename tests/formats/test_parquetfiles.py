"""What Arrow has and JSON has not: JSON columns at any depth, maps, column names, checksums."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.errors import DataError

USER = {"role": "user", "content": "go"}
CALL = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"city": "Bonn"}}}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "rain"}
REPLY = {"role": "assistant", "content": "It rains."}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def json_array(values):
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array([json.dumps(value) for value in values]))


def listed(values):
    """One list of JSON values a row."""
    ends = [0]
    for row in values:
        ends.append(ends[-1] + len(row))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), json_array([item for row in values for item in row]))


def read(load, path, **columns):
    pq.write_table(pa.table(columns), path)
    return load(path)


def test_e2_turns_that_differ_are_columns_of_json(load, tmp_path):
    turns = [[USER, REPLY], [USER, CALL, RESULT, REPLY]]
    result = read(load, tmp_path / "a.parquet", messages=listed(turns))
    assert not result.ledger.dropped
    assert [len(row.messages) for row in result.conversations] == [2, 4]
    assert result.conversations[1].messages[1].tool_calls[0].arguments == {"city": "Bonn"}


def test_e2_json_inside_structs_inside_lists(load, tmp_path):
    names, properties = pa.array(["f", "g"]), json_array([SCHEMA["properties"], {}])
    parameters = pa.StructArray.from_arrays([pa.array(["object", "object"]), properties], ["type", "properties"])
    function = pa.StructArray.from_arrays([names, parameters], ["name", "parameters"])
    tools = pa.StructArray.from_arrays([pa.array(["function"] * 2), function], ["type", "function"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), tools)
    whole = json_array([[USER, REPLY], [USER, REPLY]])
    result = read(load, tmp_path / "a.parquet", messages=whole, tools=lists)
    assert result.conversations[0].tools[0]["function"]["parameters"] == SCHEMA
    assert result.conversations[1].tools[0]["function"]["parameters"]["properties"] == {}


def test_e2_bad_json_in_such_a_column_costs_its_row(load, tmp_path):
    texts = [
        json.dumps([USER, REPLY]),
        '[{"role": "user", "content": "\\ud800"}]',
        "[{",
        None,
        json.dumps([USER, REPLY]),
    ]
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts))
    result = read(load, tmp_path / "a.parquet", messages=column)
    assert len(result.conversations) == 2
    assert dict(result.ledger.dropped) == {"lone_surrogate": 1, "bad_json": 1, "missing_field": 1}
    assert str(result.ledger.drop_samples["lone_surrogate"][0].address).endswith("row 2")


def test_r27_maps_are_objects(load, tmp_path):
    arguments = pa.array([[("city", "Bonn"), ("unit", "C")]], pa.map_(pa.string(), pa.string()))
    function = pa.StructArray.from_arrays([pa.array(["f"]), arguments], ["name", "arguments"])
    calls = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.StructArray.from_arrays([function], ["function"]))
    roles, contents = pa.array(["user", "assistant"]), pa.array(["go", None])
    empty = pa.ListArray.from_arrays(pa.array([0, 0, 1], pa.int32()), calls.flatten())
    turns = pa.StructArray.from_arrays([roles, contents, empty], ["role", "content", "tool_calls"])
    messages = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), turns)
    result = read(load, tmp_path / "a.parquet", messages=messages)
    assert result.conversations[0].messages[1].tool_calls[0].arguments == {"city": "Bonn", "unit": "C"}


def test_d13_a_key_that_stands_twice_in_a_map(load, tmp_path):
    maps = pa.array([[("a", "x"), ("a", "y")], [("a", "x")]], pa.map_(pa.string(), pa.string()))
    columns = {"prompt": ["p", "p"], "completion": ["c", "d"], "chat_template_kwargs": maps}
    result = read(load, tmp_path / "a.parquet", **columns)
    assert dict(result.ledger.dropped) == {"duplicate_key": 1}
    assert result.conversations[0].template_arguments == {"a": "x"}


def test_d13_two_columns_of_one_name(load, tmp_path):
    columns = [pa.array(["p"]), pa.array(["A"]), pa.array(["B"])]
    table = pa.Table.from_arrays(columns, ["prompt", "completion", "completion"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="Two columns have the name 'completion'"):
        load(tmp_path / "a.parquet")


def test_d8_a_column_name_that_is_no_utf8(load, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "completion": ["c"], "café": ["x"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace("café".encode(), b"caf\xff\xff"))
    with pytest.raises(DataError, match="name of a column is not UTF-8") as caught:
        load(path)
    str(caught.value).encode("utf-8")


def test_b6_a_page_that_disagrees_with_its_checksum_is_refused(load, tmp_path):
    path = tmp_path / "a.parquet"
    words = [f"word {number}" for number in range(50)]
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"prompt": words, "completion": words}), path, write_page_checksum=True, **options)
    assert len(load(path).conversations) == 50
    path.write_bytes(path.read_bytes().replace(b"word 33", b"ward 33", 1))
    with pytest.raises(DataError, match="Parquet file cannot be read"):
        load(path)


def test_values_that_json_cannot_write_cost_the_row(load, tmp_path):
    tools = pa.array([[{"name": "f", "parameters": {"since": None}}]] * 2)
    dated = pa.array([[{"name": "f", "parameters": {"since": 3}}]] * 2).cast(
        pa.list_(pa.struct([("name", pa.string()), ("parameters", pa.struct([("since", pa.timestamp("s"))]))]))
    )
    columns = {"prompt": ["p", "p"], "completion": ["c", "d"]}
    assert len(read(load, tmp_path / "a.parquet", **columns, tools=tools).conversations) == 2
    result = read(load, tmp_path / "b.parquet", **columns, tools=dated)
    assert dict(result.ledger.dropped) == {"bad_tools": 2}
