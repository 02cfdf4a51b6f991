"""No reply is a value printed in a programming language's notation, whatever field it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.serving_oracle import CHATML, dropped, proven, remarks, talk
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.render.chat_template.builtin_templates import find_builtin
from tutelage.render.chat_template.message_format import message_format_of
from tutelage.types import Message, ToolCall

ASKED = Message("user", "2+3?")
THINKS = talk(ASKED, Message("assistant", "5", reasoning="add them"))
HEAD = "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
TAIL = "{{- '<|im_end|>\\n' -}}{%- endfor -%}" + (
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
CALLS = HEAD + "{{- m.content -}}{%- for c in m.tool_calls or [] -%}BODY{%- endfor -%}" + TAIL
XML = "{{- '<call>' + c.function.name -}}" + (
    "{%- for k, v in c.function.arguments.items() -%}{{- '<' ~ k ~ '>' -}}{{- v -}}{%- endfor -%}"
)


def renderer_with(folder: Path, template: str, **options: Any) -> Renderer:
    tokenizer = Tokenizer.load(folder)
    return Renderer(tokenizer, ChatTemplate(template, named_tokens=tokenizer.named_tokens), **options)


def call(**arguments: Any) -> Message:
    return Message("assistant", None, tool_calls=(ToolCall("find", arguments),))


@pytest.mark.parametrize("name", ["chatml", "zephyr", "plain", "alpaca", "vicuna", "llama2", "llama3"])
def test_m1_reasoning_as_a_part_where_the_template_writes_no_parts(chatml_folder: Path, name: str) -> None:
    renderer = renderer_with(chatml_folder, find_builtin(name).source, reasoning_field="content")
    assert dropped(renderer, THINKS).reason in ("reasoning_not_in_reply", "template_refused")


def test_m1_the_shown_case_is_dropped_for_its_reasoning(chatml_folder: Path) -> None:
    renderer = renderer_with(chatml_folder, find_builtin("chatml").source, reasoning_field="content")
    drop = dropped(renderer, THINKS)
    assert drop.reason == "reasoning_not_in_reply"
    assert not renderer.form.writes_reasoning
    assert len(proven(renderer, talk(ASKED, Message("assistant", "5")))) == 1


@pytest.mark.parametrize(
    "printed", ["m.content | tojson", "m.content ~ ''", "'%s' % (m.content,)", "'{}'.format(m.content)"]
)
def test_m1_parts_printed_by_any_door_of_jinja(chatml_folder: Path, printed: str) -> None:
    renderer = renderer_with(chatml_folder, HEAD + "{{- " + printed + " -}}" + TAIL, reasoning_field="content")
    assert dropped(renderer, THINKS).reason == "reasoning_not_in_reply"


@pytest.mark.parametrize("printed", ["m", "m | tojson", "[m.content]", "{'text': m.content}", "(m.content,) | string"])
def test_m1_a_message_printed_as_a_value_is_no_reply(chatml_folder: Path, printed: str) -> None:
    template = (
        HEAD
        + "{%- if m.role == 'assistant' -%}{{- "
        + printed
        + " -}}{%- else -%}{{- m.content -}}{%- endif -%}"
        + TAIL
    )
    assert dropped(renderer_with(chatml_folder, template), talk(ASKED, Message("assistant", "5"))).reason == (
        "content_not_in_reply"
    )


@pytest.mark.parametrize(
    "arguments", [{"at": {"x": 1}}, {"at": ["a", None]}, {"at": [True]}, {"at": {"x": {"y": "it's"}}}]
)
def test_m1_a_nested_argument_in_pythons_notation_is_no_reply(chatml_folder: Path, arguments: dict[str, Any]) -> None:
    renderer = renderer_with(chatml_folder, CALLS.replace("BODY", XML))
    assert dropped(renderer, talk(ASKED, call(**arguments))).reason == "tool_call_not_in_reply"
    proven(renderer, talk(ASKED, call(at="harbour", days=[1, 2])))


def test_m1_a_call_in_python_may_hold_pythons_values(chatml_folder: Path) -> None:
    body = "{{- c.function.name ~ '(at=' ~ c.function.arguments.at ~ ')' -}}"
    proven(renderer_with(chatml_folder, CALLS.replace("BODY", body)), talk(ASKED, call(at=["a", None])))


def test_m1_null_content_printed_as_none_is_no_spelling_of_a_call(chatml_folder: Path) -> None:
    template = (
        HEAD + "{%- if m.tool_calls and m.content is none -%}{{- m.content -}}{%- for c in m.tool_calls -%}"
        "{{- c.function | tojson -}}{%- endfor -%}{%- else -%}{{- m.content -}}{%- endif -%}" + TAIL
    )
    renderer = renderer_with(chatml_folder, template)
    assert not renderer.form.writes_calls
    assert dropped(renderer, talk(ASKED, call(at="x"))).reason == "tool_call_not_in_reply"


PARTS_FOR_USERS = (
    HEAD + "{%- if m.role == 'user' -%}{{- m.content[0].text -}}{%- else -%}{{- m.content -}}{%- endif -%}" + TAIL
)


def test_m1_parts_that_one_role_prints_are_the_form_of_none() -> None:
    assert not message_format_of(ChatTemplate(PARTS_FOR_USERS, named_tokens={})).parts


@pytest.mark.parametrize("printed", ["m.content", "m.content | tojson"])
def test_m1_a_results_parts_that_are_printed_drop_the_row(chatml_folder: Path, printed: str) -> None:
    template = (
        HEAD + "{%- if m.role == 'tool' -%}{{- " + printed + " -}}{%- else -%}{{- m.content[0].text -}}"
        "{%- for c in m.tool_calls or [] -%}{{- c.function | tojson -}}{%- endfor -%}{%- endif -%}" + TAIL
    )
    renderer = renderer_with(chatml_folder, template)
    assert renderer.form.parts
    row = talk(ASKED, call(at="x"), Message("tool", "fine"), Message("assistant", "so"))
    assert dropped(renderer, row).reason == "message_as_data"
    proven(renderer, talk(ASKED, Message("assistant", "so")))


def test_m1_words_that_look_like_parts_are_words(chatml_folder: Path) -> None:
    said = "[{'type': 'text', 'text': '5'}] and {\"type\": \"text\"}"
    proven(renderer_with(chatml_folder, CHATML), talk(Message("user", said), Message("assistant", said)))
    parts = HEAD + "{{- m.content[0].text -}}" + TAIL
    proven(renderer_with(chatml_folder, parts), talk(Message("user", said), Message("assistant", said)))


def test_m1_tools_in_pythons_notation_are_said(chatml_folder: Path) -> None:
    renderer = renderer_with(chatml_folder, "{%- if tools -%}{{- tools -}}{%- endif -%}" + CHATML)
    tool = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {}}}
    assert "tools_as_python" in remarks(renderer, talk(ASKED, Message("assistant", "5"), tools=(tool,)))


@pytest.mark.parametrize("tool", [{"type": 5, "function": 5}, {"function": None}, {"function": [1]}, {"name": 5}])
def test_d4_an_odd_tool_does_not_end_the_run(chatml_folder: Path, tool: dict[str, Any]) -> None:
    renderer = renderer_with(chatml_folder, CHATML)
    assert len(proven(renderer, talk(ASKED, Message("assistant", "5"), tools=(tool,)))) == 1
