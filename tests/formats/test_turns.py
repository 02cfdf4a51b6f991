from __future__ import annotations

import json

import pytest

from tutelage.types import Message, ToolCall

USER = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}


def one(put, load, row, **options):
    """The conversation of a file with this row alone."""
    result = load(put("a.jsonl", json.dumps(row) + "\n"), **options)
    assert not result.ledger.dropped, result.ledger.drop_samples
    return result.conversations[0]


def drop_of(put, load, row):
    result = load(put("a.jsonl", json.dumps(row) + "\n"))
    assert not result.conversations
    [reason] = result.ledger.dropped
    return reason, result.ledger.drop_samples[reason][0].detail


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("system", "system"), ("developer", "system"), ("human", "user"), ("user", "user"), ("prompter", "user"),
        ("gpt", "assistant"), ("chatgpt", "assistant"), ("bing", "assistant"), ("bard", "assistant"),
        ("model", "assistant"), ("assistant", "assistant"), ("observation", "tool"), ("tool", "tool"),
        ("function", "tool"), ("function_response", "tool"), ("Human", "user"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("column", "key", "value"), [("messages", "role", "content"), ("dialogue", "from", "value")])
def test_roles(put, load, name, role, column, key, value):
    row = {column: [{key: name, value: "x"}, {key: "assistant", value: "a"}]}
    assert one(put, load, row).messages == (Message(role, "x"), Message("assistant", "a"))


def test_an_unknown_role_names_the_nearest(put, load):
    reason, detail = drop_of(put, load, {"messages": [USER, {"role": "asistant", "content": "a"}]})
    assert reason == "unknown_role"
    assert "'asistant'" in detail
    assert "nearest: 'assistant'" in detail


def test_function_calls_of_sharegpt(put, load):
    call = {"name": "f", "arguments": {"x": [1, None]}}
    for value in (call, [call, call], json.dumps(call), json.dumps([call, call])):
        turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": value}]
        row = {"conversations": [*turns, {"from": "observation", "value": "{}"}, {"from": "gpt", "value": "a"}]}
        messages = one(put, load, row).messages
        assert all(made == ToolCall("f", {"x": [1, None]}) for made in messages[1].tool_calls)
        assert len(messages[1].tool_calls) == (2 if isinstance(value, list) or str(value).startswith("[") else 1)
        assert messages[1].content is None
        assert messages[2] == Message("tool", "{}")


def test_tool_calls_of_messages(put, load):
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}},
        {"function": {"name": "g", "arguments": {"y": "é"}}},
        {"function": {"name": "h", "arguments": ""}},
        {"name": "k"},
    ]
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        ]
    }
    messages = one(put, load, row).messages
    assert messages[1].tool_calls == (
        ToolCall("f", {"x": None}, "c1"),
        ToolCall("g", {"y": "é"}),
        ToolCall("h", {}),
        ToolCall("k", {}),
    )
    assert messages[2] == Message("tool", "", name="f", tool_call_id="c1")
    assert messages[3].tool_calls == (ToolCall("f", {}),)


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "f", "arguments": "{x: 1}"}},
        {"function": {"name": "f", "arguments": "[1]"}},
        {"function": {"name": "f", "arguments": [1]}},
        {"function": {"arguments": {}}},
        "not json",
        3,
    ],
)
def test_bad_tool_arguments(put, load, call):
    reason, detail = drop_of(put, load, {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]})
    assert reason == "bad_tool_arguments"
    assert "messages[1]" in detail


def test_tools(put, load):
    wrapped = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for tools in ([wrapped], json.dumps([wrapped]), wrapped, [json.dumps(wrapped)], [wrapped["function"]]):
        assert one(put, load, {"messages": [USER, REPLY], "tools": tools}).tools == (wrapped,)
    for nothing in (None, "", "[]", [], " "):
        assert one(put, load, {"messages": [USER, REPLY], "tools": nothing}).tools == ()


@pytest.mark.parametrize("tools", ["{", "3", 3, ["x"], [{"x": 1}], [3], [{"function": {}}]])
def test_bad_tools(put, load, tools):
    assert drop_of(put, load, {"messages": [USER, REPLY], "tools": tools})[0] == "bad_tools"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning(put, load, key):
    row = {"messages": [USER, {"role": "assistant", "content": "a", key: "because"}]}
    assert one(put, load, row).messages[1] == Message("assistant", "a", reasoning="because")
    alone = {"messages": [USER, {"role": "assistant", "content": "", key: "because"}]}
    assert one(put, load, alone).messages[1] == Message("assistant", "", reasoning="because")


@pytest.mark.parametrize(
    ("extra", "weight"),
    [
        ({"train": False}, 0.0), ({"train": True}, 1.0), ({"weight": 0}, 0.0), ({"loss_weight": 0.5}, 0.5),
        ({}, None), ({"train": None, "weight": None}, None),
    ],
)  # fmt: skip
def test_weights(put, load, extra, weight):
    assert one(put, load, {"messages": [USER, REPLY | extra]}).messages[1].weight == weight


@pytest.mark.parametrize(
    "extra",
    [{"train": "yes"}, {"weight": "1"}, {"weight": -1}, {"weight": True}, {"weight": float("nan")}, {"name": 3},
     {"tool_call_id": 3.5}, {"tool_call_id": True},
     {"reasoning": ["x"]}, {"content": 3}, {"content": {"a": 1}}, {"role": 7}],
)  # fmt: skip
def test_wrong_types_in_a_turn(put, load, extra):
    assert drop_of(put, load, {"messages": [USER, REPLY | extra]})[0] == "wrong_type"


def test_content_parts(put, load):
    parts = [
        {"type": "reasoning", "value": "think"},
        {"type": "text", "text": "one "},
        "two",
        {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"type": "tool_use", "id": "t", "name": "g", "input": {"y": 2}},
    ]
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, REPLY | {"content": parts}]}
    calls = (ToolCall("f", {"x": 1}), ToolCall("g", {"y": 2}, "t"))
    assert one(put, load, row).messages == (
        Message("user", "q"),
        Message("assistant", "one two", reasoning="think", tool_calls=calls),
    )


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "unsupported_content"),
        ({"type": "input_audio"}, "unsupported_content"),
        ({"type": ["x"]}, "unsupported_content"),
        ({"type": "text"}, "wrong_type"),
        (3, "wrong_type"),
    ],
)
def test_parts_that_cannot_be_trained(put, load, part, reason):
    assert drop_of(put, load, {"messages": [{"role": "user", "content": [part]}, REPLY]})[0] == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no_messages"),
        ({"messages": "[]"}, "no_messages"),
        ({"messages": "[{'role': 'user'}]"}, "bad_json"),
        ({"messages": 3}, "wrong_type"),
        ({"messages": ["x"]}, "wrong_type"),
        ({"messages": [{"content": "x"}]}, "missing_field"),
        ({"messages": [{"role": "user"}, REPLY]}, "missing_field"),
        ({"messages": [{"role": "user", "content": " "}, REPLY]}, "missing_field"),
        ({"messages": [USER, REPLY, {"role": "tool"}, REPLY]}, "missing_field"),
        ({"messages": [USER]}, "no_reply"),
        ({"messages": [USER, REPLY | {"content": ""}]}, "empty_reply"),
        ({"messages": [USER, REPLY | {"content": None}]}, "empty_reply"),
        ({"messages": [USER, REPLY | {"content": "\n\u2003"}, USER, REPLY]}, "empty_reply"),
        ({"messages": [USER, REPLY], "images": ["x.png"]}, "unsupported_content"),
        ({"messages": [USER, REPLY], "chat_template_kwargs": [1]}, "wrong_type"),
        ({"conversation": [{"human": "a"}]}, "missing_field"),
        ({"conversation": [{"human": "a", "assistant": 3}]}, "wrong_type"),
    ],
)
def test_drops(put, load, row, reason):
    assert drop_of(put, load, row)[0] == reason


def test_trailing_turns_are_removed_and_told(put, load):
    row = {"messages": [USER, REPLY, {"role": "system", "content": "s"}, USER]}
    result = load(put("a.jsonl", json.dumps(row)))
    assert result.texts == [[("user", "q"), ("assistant", "a")]]
    assert dict(result.ledger.changed) == {"trailing_turns_removed": 1}
    assert "system, user" in result.ledger.change_samples["trailing_turns_removed"][0].detail


def test_pairs_and_fields_beside_them(put, load):
    row = {
        "system": "s",
        "conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    conversation = one(put, load, row)
    assert [message.content for message in conversation.messages] == ["s", "a", "b", "c", "d"]
    assert conversation.template_arguments == {"enable_thinking": False}


def test_a_system_text_said_twice_is_one_turn(put, load):
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert len(one(put, load, {"system": "s", "conversations": turns}).messages) == 3
    assert len(one(put, load, {"system": "other", "conversations": turns}).messages) == 4
