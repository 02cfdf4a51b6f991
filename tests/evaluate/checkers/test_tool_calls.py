"""Calls in replies as templates write them, and when two sets of calls are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluate.checkers.tool_calls import Call, calls_in, same_calls, tool_calls, tool_names
from tutelage.types import Address, Prompt, ToolCall

LYON = Call("weather", {"city": "Lyon"})
PLAIN = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5)
ARGUMENTS = st.dictionaries(st.text(max_size=4), PLAIN | st.lists(PLAIN, max_size=3), max_size=3)


def asked(*calls: tuple[str, Mapping[str, Any]]) -> Prompt:
    made = tuple(ToolCall(name, arguments) for name, arguments in calls)
    return Prompt(Address("task.jsonl", 1), np.zeros(1, dtype=np.int32), "", "", made)


def spelled(*calls: tuple[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in calls
    )


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Lyon"}}\n</tool_call>',  # Hermes, Qwen 2.5 and 3
        '{"name": "weather", "parameters": {"city": "Lyon"}}',  # Llama 3.1
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Lyon"}, "id": "abc123abc"}]</s>',  # Mistral 7B 0.3
        'Action: ```json\n[{"tool_name": "weather", "parameters": {"city": "Lyon"}}]\n```',  # Command R
        '{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Lyon\\"}"}}',
        '{"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Lyon"}}}]}',
        'Let me {look}. {"x": 1} {"arguments": {"city": "Lyon"}, "name": "weather"} Done.',
    ],
)
def test_a_call_is_read_in_the_forms_of_json(text: str) -> None:
    assert calls_in(text) == (LYON,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "weather in Lyon",
        '{"city": "Lyon"}',
        '{"name": "Lyon"}',
        '{"name": 3, "arguments": {}}',
        '{"name": "weather", "arguments": {"city": "Lyon"}',  # cut off
        "{'name': 'weather', 'arguments': {'city': 'Lyon'}}",
        "[weather(city='Lyon')]",
        "{" * 2000,
        '{"a": ' * 2000,
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert calls_in(text) == ()


@given(st.lists(st.tuples(st.text(min_size=1, max_size=6), ARGUMENTS), max_size=3))
def test_the_rows_own_calls_in_any_order_are_right(calls: list[tuple[str, dict[str, Any]]]) -> None:
    prompt = asked(*calls)

    for reply in (spelled(*calls), spelled(*reversed(calls))):
        assert (tool_calls(prompt, reply), tool_names(prompt, reply)) == (1, 1)
    backwards = [(name, dict(reversed(arguments.items()))) for name, arguments in calls]
    assert tool_calls(prompt, spelled(*backwards)) == 1


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        (1, 1.0, True),
        (1, "1", False),
        (1, True, False),
        (0, False, False),
        (None, "", False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1.0}, True),
        ("Lyon", "lyon", False),
        (1.5, 1.5, True),
        ([[1]], [[1.0]], True),
    ],
)
def test_types_of_arguments_count(wanted: Any, found: Any, same: bool) -> None:
    assert same_calls([Call("f", {"x": found})], [Call("f", {"x": wanted})]) is same


def test_a_missing_an_additional_and_a_repeated_call_are_wrong() -> None:
    prompt = asked(("weather", {"city": "Lyon"}), ("weather", {"city": "Nice"}))

    assert tool_calls(prompt, spelled(("weather", {"city": "Lyon"}))) == 0
    assert tool_calls(prompt, spelled(*[("weather", {"city": "Lyon"})] * 2)) == 0
    assert tool_names(prompt, spelled(*[("weather", {"city": "Lyon"})] * 2)) == 1
    three = spelled(("weather", {"city": "Lyon"}), ("weather", {"city": "Nice"}), ("time", {}))
    assert (tool_calls(prompt, three), tool_names(prompt, three)) == (0, 0)


def test_an_argument_left_out_differs_from_null_and_from_what_is_no_object() -> None:
    prompt = asked(("f", {}))

    assert tool_calls(prompt, spelled(("f", {"x": None}))) == 0
    assert tool_calls(prompt, '{"name": "f", "arguments": "no json"}') == 0
    assert tool_names(prompt, '{"name": "f", "arguments": "no json"}') == 1


def test_where_the_row_makes_no_call_none_is_right() -> None:
    assert tool_calls(asked(), "Hello.") == 1
    assert tool_calls(asked(), spelled(("f", {}))) == 0
