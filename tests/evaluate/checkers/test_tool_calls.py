"""Calls in replies as templates write them, and when two sets of calls are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluate.checkers.tool_calls import Call, calls_in, same_calls, tool_calls, tool_names
from tutelage.render import ChatTemplate
from tutelage.render.chat_template.message_format import message_format_of
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import Unproven
from tutelage.types import Address, Conversation, Message, Prompt, ToolCall

TEMPLATES = Path(__file__).resolve().parents[3].parent / "shared/material/templates"

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
        '[TOOL_CALLS]weather[ARGS]{"city": "Lyon"}</s>',  # Mistral since 2025
        '[TOOL_CALLS]weather[CALL_ID]abc123abc[ARGS]{"city": "Lyon"}</s>',
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Lyon"}',
        '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Lyon"}<｜tool▁call▁end｜>',  # DeepSeek V3.1
        '<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "Lyon"}',  # Kimi K2
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Lyon"}<|call|>',  # gpt-oss, in data
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Lyon"}',  # and in replies
        "<tool_call>\n<function=weather>\n<parameter=city>\nLyon\n</parameter>\n</function>\n</tool_call>",
        'Let me {look}. {"x": 1} {"arguments": {"city": "Lyon"}, "name": "weather"} Done.',
    ],
)
def test_a_call_is_read_in_the_forms_of_templates(text: str) -> None:
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
        '[TOOL_CALLS]weather[ARGS]{"city": ',
        "<function=weather><parameter=city>Lyon",
        "{" * 2000,
        '{"a": ' * 2000,
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert calls_in(text) == ()


def test_arguments_that_look_like_a_call_are_arguments() -> None:
    inner = {"name": "time", "arguments": {}}

    assert calls_in(f"[TOOL_CALLS]weather[ARGS]{json.dumps(inner)}") == (Call("weather", inner),)
    tagged = f"<function=weather><parameter=x>{json.dumps(inner)}</parameter></function>"
    assert calls_in(tagged) == (Call("weather", {"x": inner}),)


def test_several_calls_in_different_forms_keep_their_order() -> None:
    text = '{"name": "a", "arguments": {}} [TOOL_CALLS]b[ARGS]{} <function=c></function> {"name": "d", "arguments": {}}'

    assert [call.name for call in calls_in(text)] == ["a", "b", "c", "d"]


@pytest.mark.slow
@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the published templates are not here")
def test_the_calls_of_nearly_all_published_templates_are_read_back() -> None:
    """Of those that write calls of a turn without words; the others have a notation of their own."""
    function = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}
    made = ToolCall("weather", {"city": "Lyon", "days": 2}, "call00001")
    turns = (Message("user", "Well?"), Message("assistant", None, tool_calls=(made,)))
    asked_for = Conversation(turns, Address("x", 1), ({"type": "function", "function": function},))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    read: dict[str, bool] = {}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        template = ChatTemplate(path.read_text(encoding="utf-8"), named_tokens=tokens)
        try:
            row = RenderedRow(asked_for, template, message_format_of(template, "auto"))
            before, both = (row.render(count, generation_prompt=False) for count in (1, 2))
        except Unproven:
            continue
        shared = next((at for at, (one, other) in enumerate(zip(before, both, strict=False)) if one != other), None)
        reply = both[len(before) if shared is None else shared :]
        if "Lyon" in reply:
            read[path.stem] = same_calls(calls_in(reply), [Call("weather", dict(made.arguments))])

    assert (sum(read.values()), len(read)) == (47, 52)
    assert {name.partition("__")[2].partition("~")[0] for name, right in read.items() if not right} == {
        "deepseek-ai-DeepSeek-V3.2",
        "diffusion-gemma",
        "diffusion-gemma-training",
        "tool-chat-template-llama3.2-pythonic",
    }


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
