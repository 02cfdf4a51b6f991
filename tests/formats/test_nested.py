"""Documents inside strings, and nested values: half surrogates, depth, keys that stand twice, numbers."""

from __future__ import annotations

import csv
import io
import json
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.formats import read
from tutelage.formats.bytestream import ByteStream
from tutelage.formats.jsonfiles import json_lines
from tutelage.formats.nested import (
    DEPTH_MAX,
    ExactDecoder,
    SharedEndings,
    SharedValues,
    duplicate_key_in,
    holds_null,
    json_of_python,
)
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import FileRemarks, RowContext
from tutelage.formats.toolspecs import tools_from
from tutelage.ledger import Ledger
from tutelage.types import Drop

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
GOOD = {"messages": TURNS}
QUESTION, DOUBLED = '"q"', ', "content"_: "r"'
HALF = "\\ud800"


def reasons_of(put, *lines):
    """The reasons of the bad lines between two good ones, and the addresses."""
    good = json.dumps(GOOD)
    drops: list[Drop] = []
    ledger = Ledger(listener=drops.append)
    kept = list(read([str(put("a.jsonl", "\n".join([good, *lines, good]) + "\n"))], ledger=ledger))
    assert [row.address.number for row in kept] == [1, 2 + len(lines)]
    assert [drop.address.number for drop in drops] == list(range(2, 2 + len(lines)))
    for drop in drops:
        drop.detail.encode("utf-8")
    return dict(ledger.dropped)


def turns_with(text):
    return json.dumps(TURNS).replace('"q"', f'"{text}"')


def test_b5_half_a_pair_in_any_document_inside_a_row_costs_the_row(put):
    call = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f'{{"x": "{HALF}"}}'}}]}]
    rows = [
        {"messages": turns_with(HALF)},
        {"messages": turns_with("q").replace('"user"', f'"{HALF}"')},
        {"messages": turns_with("q").replace('"content"', f'"{HALF}"')},
        {"messages": [TURNS[0], *call]},
        {"messages": TURNS, "tools": f'[{{"name": "{HALF}"}}]'},
        {"messages": TURNS, "tools": [f'{{"name": "f", "{HALF}": 1}}']},
        {"prompt": "q", "completion": "a", "history": f'[["{HALF}", "b"]]'},
        {"messages": TURNS, "chat_template_kwargs": f'{{"x": "{HALF}"}}'},
        {"messages": [TURNS[0], {"from": "function_call", "content": f'{{"name": "{HALF}"}}'}]},
    ]
    assert reasons_of(put, *map(json.dumps, rows)) == {"lone_surrogate": len(rows)}


def test_b5_half_a_pair_behind_an_escaped_backslash(put):
    row = json.dumps({"messages": turns_with("BACKud800")}).replace("BACK", "\\u005c")
    assert reasons_of(put, row) == {"lone_surrogate": 1}


def test_b5_half_a_pair_in_cells_of_tables(put, load, tmp_path):
    buffer = io.StringIO()
    rows = [[json.dumps(TURNS)], [turns_with(HALF)], [turns_with("q").replace('"user"', f'"{HALF}"')]]
    csv.writer(buffer).writerows([["messages"], *rows])
    assert dict(load(put("a.csv", buffer.getvalue())).ledger.dropped) == {"lone_surrogate": 2}
    pq.write_table(pa.table({"messages": [row[0] for row in rows]}), tmp_path / "a.parquet")
    assert dict(load(tmp_path / "a.parquet").ledger.dropped) == {"lone_surrogate": 2}


def test_b5_a_whole_pair_is_text(put, load):
    path = put("a.jsonl", json.dumps({"messages": turns_with("\\ud83d\\ude00")}))
    assert load(path).texts == [[("user", "\U0001f600"), ("assistant", "a")]]


def nested(depth):
    return "[" * depth + "1" + "]" * depth


@pytest.mark.parametrize("depth", [150, 480, 900, 5000])
def test_d6_what_is_nested_too_deep_costs_the_row(put, depth):
    call = '[{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": X}]}]'
    arguments = f'{{"x": {nested(depth)}}}'
    lines = [
        f'{{"messages": {call.replace("X", arguments)}}}',
        f'{{"messages": {call.replace("X", json.dumps(arguments))}}}',
        json.dumps({"messages": call.replace("X", arguments)}),
        f'{{"messages": {json.dumps(TURNS)}, "tools": [{{"name": "f", "parameters": {arguments}}}]}}',
        json.dumps({"messages": TURNS, "tools": f'[{{"name": "f", "parameters": {arguments}}}]'}),
        json.dumps({"messages": TURNS, "tools": [f'{{"name": "f", "parameters": {arguments}}}']}),
        f'{{"messages": {json.dumps(TURNS)}, "chat_template_kwargs": {arguments}}}',
        json.dumps({"messages": TURNS, "chat_template_kwargs": arguments}),
        f'{{"messages": [{{"role": "tool", "content": {arguments}}}, {{"role": "assistant", "content": "a"}}]}}',
    ]
    dropped = reasons_of(put, *lines)
    assert sum(dropped.values()) == len(lines)
    assert set(dropped) <= {"nested_too_deep", "bad_json"}  # a whole line that Python cannot decode is no JSON to us
    if depth < 900:
        assert dropped == {"nested_too_deep": len(lines)}


def test_d5_depth_counts_both_halves_and_stops_where_it_says(put, load):
    def row(depth):
        return {"messages": TURNS, "chat_template_kwargs": f'{{"x": {nested(depth)}}}'}

    kept = load(put("a.jsonl", json.dumps(row(DEPTH_MAX - 1))))
    assert not kept.ledger.dropped
    assert reasons_of(put, json.dumps(row(DEPTH_MAX))) == {"nested_too_deep": 1}
    deep = nested(60)
    tools = [json.dumps({"name": "f", "parameters": json.dumps({"x": json.loads(deep)})})]
    assert not load(put("b.jsonl", json.dumps({"messages": TURNS, "tools": tools}))).ledger.dropped


def test_d6_a_column_that_nothing_reads_may_be_deep(put, load):
    line = json.dumps({"messages": TURNS, "meta": {"x": json.loads(nested(400)), "y": "\U0001f600"}})
    assert len(load(put("a.jsonl", line)).conversations) == 1


@pytest.mark.parametrize("tools", [[{"type": 5, "function": 5}], [{"type": "function", "function": 5}],
                                   [{"type": "function", "function": {}}], [{"type": 5, "name": "f"}],
                                   [{"function": None, "type": "function"}], [{"name": "f", "parameters": [1]}],
                                   [{"name": ["f"]}]])  # fmt: skip
def test_d4_tools_that_describe_no_function_cost_the_row(put, load, tools):
    assert reasons_of(put, json.dumps({"messages": TURNS, "tools": tools})) == {"bad_tools": 1}


def test_d4_a_tool_of_the_servers_own_stays(put, load):
    tools = [{"type": "web_search"}, {"type": "function", "function": {"name": "f"}}]
    assert load(put("a.jsonl", json.dumps({"messages": TURNS, "tools": tools}))).conversations[0].tools == tuple(tools)


def test_d13_a_key_that_stands_twice_costs_the_row(put):
    turns = json.dumps(TURNS)
    lines = [
        f'{{"messages": {turns}, "messages": {turns}}}',
        f'{{"messages" : {turns}, "messages": {turns}}}',
        '{"messages": [{"role": "user", "content": "q", "content": "r"}, {"role": "assistant", "content": "a"}]}',
        f'{{"messages": {turns}, "meta": {{"a": [{{"b": 1, "b": 2}}]}}}}',
        json.dumps({"messages": turns.replace('"q"', '"q", "content": "r"')}),
        json.dumps({"messages": TURNS, "tools": '[{"name": "f", "name": "g"}]'}),
    ]
    assert reasons_of(put, *lines) == {"duplicate_key": len(lines)}


@pytest.mark.parametrize("space", [" ", "\t", "\r", "\t ", " \t", "\r\t"])
def test_d13_white_space_before_a_colon_hides_no_doubled_key(put, load, space):
    turns = json.dumps(TURNS)
    text = json.dumps({"messages": turns.replace(": ", f"{space}: ").replace('"q"', f'"q", "content"{space}: "r"')})
    lines = [
        f'{{"messages"{space}: {turns}, "messages"{space}: {turns}}}',
        f'{{"messages": {turns}, "messages"{space}: {turns}}}',
        f'{{"messages": {turns.replace(QUESTION, QUESTION + DOUBLED.replace("_", space))}}}',
        text,
    ]
    assert reasons_of(put, *lines) == {"duplicate_key": len(lines)}
    assert not load(put("b.jsonl", json.dumps(GOOD).replace(": ", f"{space}:"))).ledger.dropped
    doubled = f'{{"messages": {turns}, "messages"{space}\n: {turns}}}'
    for document in (f"[{json.dumps(GOOD)}, {doubled}]", f'{{"rows": [{json.dumps(GOOD)}, {doubled}]}}'):
        assert dict(load(put("a.json", document)).ledger.dropped) == {"duplicate_key": 1}


def test_d13_a_doubled_key_is_found_in_tools_that_rows_share(put):
    tools = json.dumps([{"name": "f", "description": "d"}])
    good = f'{{"messages": {json.dumps(TURNS)}, "tools": {tools}}}'
    bad = good.replace('"description"', '"name": "f", "description"')
    assert reasons_of(put, bad, bad.replace('"name"', '"name"\t', 1)) == {"duplicate_key": 2}
    assert reasons_of(put, good.replace('"a"', '"a", "content": "b"')) == {"duplicate_key": 1}


@pytest.mark.parametrize(
    ("text", "doubled"),
    [
        ("[1]", None),
        ('{"a": {"b": [{"c": 1}, {"d": {}}]}}', None),
        ('{"a": 1, "b": {"a": 2, "c": [{"a": 3}]}}', None),
        ('{"a": 1, "a": {"b": 2}}', "a"),
        (' {"a": [{"b": 1, "c": 2, "b": 1}], "d": {"a": 1, "a": 1}}\n', "a"),
        ('{"a\\\\": 1, "a\\\\" \t: 2}', "a\\"),
    ],
)
def test_d13_a_decoder_notices_a_key_that_stands_twice(text, doubled):
    decoder = ExactDecoder()
    for _ in range(2):
        value = decoder.decode(text)
        assert value == json.loads(text)
        assert decoder.has_duplicate_key is (doubled is not None)
        assert duplicate_key_in(value) == doubled
        decoder.decode("{}")
        assert not decoder.has_duplicate_key


@pytest.mark.parametrize("innermost", ['"a"', "1", "", "{}", '{"a": "b"}'])
def test_r4_depth_is_the_same_whatever_is_innermost(innermost):
    extra = innermost.startswith("{")
    for depth, refused in ((DEPTH_MAX - extra, False), (DEPTH_MAX + 1 - extra, True)):
        value = json.loads("[" * depth + innermost + "]" * depth)
        with pytest.raises(RowError, match="nested_too_deep") if refused else nullcontext():
            assert not holds_null(value, "`tools`")


def test_tools_of_each_rows_own_are_kept_for_a_while_alone():
    context = RowContext(FileRemarks("a.jsonl", lambda _: None))
    for number in range(600):
        tools_from([{"name": f"f{number}", "parameters": {}}], context)
    assert 0 < len(context.remarks.tools) < 300
    kept = next(iter(context.remarks.tools.values()))
    assert tools_from(kept[0], context) is kept[1].tools


def test_shared_values_are_bounded_and_given_up_where_rows_have_their_own():
    shared = SharedValues()
    for number in range(600):
        shared.share({"tools": [{"name": f"f{number}", "parameters": {"x": 1}}]})
    assert 0 < len(shared._cache) < 300
    shared, repeated = SharedValues(), []
    for number in range(600):
        fields = {"tools": [{"name": f"f{number % 200}", "parameters": {"x": 1}}]}
        shared.share(fields)
        repeated.append(fields["tools"])
    assert all(repeated[number] is repeated[number % 200] for number in range(600))


def test_d13_in_documents_and_wrappers(put, load):
    turns = json.dumps(TURNS)
    doubled = f'{{"messages": {turns}, "messages": {turns}}}'
    good = json.dumps(GOOD)
    for text in (f"[{good}, {doubled}, {good}]", f'{{"rows": [{good}, {doubled}, {good}]}}'):
        result = load(put("a.json", text))
        assert len(result.conversations) == 2
        assert [str(drop.address)[-3:] for drop in result.ledger.drop_samples["duplicate_key"]] == ["[1]"]
    with pytest.raises(ValueError, match="stands twice"):
        load(put("b.json", f'{{"rows": [{good}], "rows": [{good}]}}'))


def test_d13_words_that_look_like_keys_are_words(put, load):
    text = 'say "x": or "y" : or \\ and \\": {"a":1,"a":2}'
    row = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}], text: text}
    line = json.dumps(row, ensure_ascii=False)
    decoder = ExactDecoder()
    assert decoder.decode(line) == row
    assert not decoder.has_duplicate_key
    assert load(put("a.jsonl", line)).texts == [[("user", text), ("assistant", text)]]


def test_python_notation_becomes_json():
    text = "{'a': 'it\\'s', 'b': True, 'c': None, \"d\": [1, -2.5, \"x'y\"], 'e': '\\u00e9\\n\"'}"
    expected = {"a": "it's", "b": True, "c": None, "d": [1, -2.5, "x'y"], "e": 'é\n"'}
    assert json.loads(json_of_python(text) or "") == expected
    assert json_of_python("{'a': open('x')}") is None


TOOLS = json.dumps([{"name": "f", "parameters": {"tools": {"x": 1}}}])


@pytest.mark.parametrize(
    "line",
    [
        '{"messages": M, "tools": T}',
        '{"messages": M , "tools": T}',
        '{"messages": M,"tools": T}',
        '{"id": 7, "messages": M, "tools": T}',
        '{,"tools": T}',
        '{"tools": T}',
        '{"messages": M "tools": T}',
        '{"messages": M,, "tools": T}',
        '{"messages": M,\u00a0"tools": T}',
        '{"messages": M], "tools": T}',
        '["messages", M, "tools": T}',
        '{"tools": [], "messages": M, "tools": T}',
        '{"messages": M, "messages": M, "tools": T}',
        '{"more": {"messages": M, "tools": T}}',
        '{"more": {"messages": M, "tools": T}',
        '"messages": M, "tools": T}',
        '{"messages": "{", "tools": T}',
        '{"messages": "a\\", "tools": T}',
        '{"messages": [NaN, 1e999], "tools": T}',
    ],
)
def test_a_line_whose_end_is_known_is_read_as_any_other(tmp_path, line):
    """Rows before it teach how lines of the file end; by itself, the line is read without."""
    line = line.replace("M", json.dumps(TURNS)).replace("T", TOOLS)
    good = f'{{"messages": {json.dumps(TURNS)}, "tools": {TOOLS}}}'

    def last_of(*lines):
        (tmp_path / "a.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        row = list(json_lines(ByteStream(tmp_path / "a.jsonl"), "a.jsonl"))[-1]
        return (row.reason, row.detail) if isinstance(row, Drop) else (repr(row.fields), row.text)

    assert last_of(good, good, good, line) == last_of(line.replace("T", TOOLS)) == last_of("{}", "{}", "{}", line)


def test_equal_ends_are_one_value_and_ends_of_each_rows_own_are_given_up(tmp_path):
    def rows_of(count):
        lines = [json.dumps({"messages": TURNS, "tools": [{"name": f"f{number % count}"}]}) for number in range(600)]
        (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return [row.fields["tools"] for row in json_lines(ByteStream(tmp_path / "a.jsonl"), "a.jsonl")]

    shared = rows_of(40)
    assert all(shared[number] is shared[number % 40] for number in range(600))
    assert [one[0]["name"] for one in rows_of(600)] == [f"f{number}" for number in range(600)]
    ends = SharedEndings()
    for number in range(600):
        ends.add(f'{{"a": 1, "tools": [{number}]}}'.encode(), {"a": 1, "tools": [number]})
    assert 0 < len(ends._cache) < 300
