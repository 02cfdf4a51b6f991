"""How a template wants its messages: asked, never assumed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.template_grammar import CHOICES, REASONING_FIELDS, Grammar
from tutelage.render import ChatTemplate
from tutelage.render.chat_template.message_format import MessageFormat, message_format_of
from tutelage.types import Address, Conversation, Message, ToolCall

NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
CALL = ToolCall("look", {"city": 'Or"léans', "days": [1, None]}, id="call00001")
TURNS = (
    Message("user", "how?"),
    Message("assistant", None, tool_calls=(CALL,)),
    Message("tool", "fine", name="look", tool_call_id="call00001"),
    Message("assistant", "so", reasoning="hm"),
)
HEAD = "{%- for m in messages -%}{{- '<' + m.role + '>' -}}"
TAIL = "{{- '$' -}}{%- endfor -%}"
CONTENT = "{{- m.content -}}"
CALLS = "{%- for c in m.tool_calls or [] -%}{{- c.function.name + ' ' + ARGUMENTS -}}{%- endfor -%}"


def form(body: str) -> MessageFormat:
    return message_format_of(ChatTemplate(HEAD + body + TAIL, named_tokens=NAMED))


def seen(form: MessageFormat) -> list[dict[str, Any]]:
    return form.messages(Conversation(TURNS, Address("rows.jsonl", 1)))


class TestContent:
    def test_text_where_the_template_takes_it(self) -> None:
        assert not form(CONTENT).parts

    def test_parts_where_only_they_are_written(self) -> None:
        found = form("{%- for p in m.content -%}{{- p.text -}}{%- endfor -%}")
        assert found.parts
        assert seen(found)[0]["content"] == [{"type": "text", "text": "how?"}]

    def test_text_where_the_template_takes_both(self) -> None:
        either = "{%- if m.content is string -%}{{- m.content -}}{%- else -%}{{- m.content[0].text -}}{%- endif -%}"
        assert not form(either).parts

    def test_null_beside_calls_where_empty_text_hides_them(self) -> None:
        calls = CALLS.replace("ARGUMENTS", "c.function.arguments | tojson")
        either = "{%- if m.content is none -%}" + calls + "{%- else -%}{{- m.content -}}{%- endif -%}"
        found = form(either)
        assert found.null_content
        assert found.writes_calls
        assert [one["content"] for one in seen(found)] == ["how?", None, "fine", "so"]

    def test_empty_text_otherwise(self) -> None:
        found = form(CONTENT + CALLS.replace("ARGUMENTS", "c.function.arguments | tojson"))
        assert not found.null_content
        assert seen(found)[1]["content"] == ""


class TestCalls:
    def arguments(self, found: MessageFormat) -> Any:
        return seen(found)[1]["tool_calls"][0]["function"]["arguments"]

    def test_an_object_where_the_template_writes_json(self) -> None:
        found = form(CONTENT + CALLS.replace("ARGUMENTS", "c.function.arguments | tojson"))
        assert self.arguments(found) == {"city": 'Or"léans', "days": [1, None]}

    def test_text_where_the_template_joins_texts(self) -> None:
        found = form(CONTENT + CALLS.replace("ARGUMENTS", "c.function.arguments"))
        assert found.writes_calls
        assert json.loads(self.arguments(found)) == {"city": 'Or"léans', "days": [1, None]}

    def test_text_where_an_object_would_come_out_in_pythons_notation(self) -> None:
        found = form(CONTENT + CALLS.replace("+ ARGUMENTS", "~ c.function.arguments"))
        assert isinstance(self.arguments(found), str)

    def test_an_object_where_text_would_be_encoded_twice(self) -> None:
        whole = "{%- for c in m.tool_calls or [] -%}{{- c | tojson -}}{%- endfor -%}"
        assert isinstance(self.arguments(form(CONTENT + whole)), dict)

    def test_a_template_without_calls_writes_none(self) -> None:
        assert not form(CONTENT).writes_calls

    def test_a_template_that_writes_the_name_alone_writes_none(self) -> None:
        assert not form(CONTENT + CALLS.replace(" + ' ' + ARGUMENTS", "")).writes_calls

    def test_calls_that_are_written_only_before_a_result_are_found(self) -> None:
        some = "{%- if loop.nextitem and loop.nextitem.role == 'tool' -%}" + CALLS + "{%- endif -%}"
        assert form(CONTENT + some.replace("ARGUMENTS", "c.function.arguments | tojson")).writes_calls

    def test_ids_and_names_go_along(self) -> None:
        messages = seen(form(CONTENT))
        assert messages[1]["tool_calls"][0]["id"] == "call00001"
        assert (messages[2]["name"], messages[2]["tool_call_id"]) == ("look", "call00001")


class TestReasoning:
    @pytest.mark.parametrize("field", REASONING_FIELDS)
    def test_it_goes_where_the_template_reads_it(self, field: str) -> None:
        found = form("{{- m." + field + " or '' -}}" + CONTENT)
        assert found.writes_reasoning
        assert found.reasoning == field
        assert seen(found)[3][field] == "hm"

    PARTS = (
        "{%- if m.content is string -%}{{- m.content -}}{%- else -%}{%- for p in m.content -%}"
        "{{- p.thinking if p.type == 'thinking' else p.text -}}{%- endfor -%}{%- endif -%}"
    )

    def test_it_is_a_part_of_the_content_where_that_is_asked_for(self) -> None:
        found = message_format_of(ChatTemplate(HEAD + self.PARTS + TAIL, named_tokens=NAMED), "content")
        assert found.writes_reasoning
        assert seen(found)[3]["content"] == [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"}]

    def test_a_field_that_is_asked_for_is_taken_even_if_another_is_written_too(self) -> None:
        both = HEAD + "{{- m.reasoning_content or m.thinking or '' -}}" + CONTENT + TAIL
        assert message_format_of(ChatTemplate(both, named_tokens=NAMED)).reasoning == "reasoning_content"
        assert message_format_of(ChatTemplate(both, named_tokens=NAMED), "thinking").reasoning == "thinking"

    def test_a_list_that_comes_out_in_pythons_notation_is_not_written(self) -> None:
        assert not form("{{- m.content | string -}}").writes_reasoning

    def test_a_template_that_names_it_and_never_writes_it_does_not_write_it(self) -> None:
        assert not form("{%- if m.reasoning_content is defined -%}{%- endif -%}" + CONTENT).writes_reasoning

    def test_a_turn_without_has_no_such_field(self) -> None:
        assert not set(REASONING_FIELDS) & set(seen(form("{{- m.thinking or '' -}}" + CONTENT))[0])


@pytest.mark.parametrize("style", CHOICES["style"])
@pytest.mark.parametrize("calls", CHOICES["calls"])
@pytest.mark.parametrize("content", CHOICES["content"])
@pytest.mark.parametrize("reasoning", ["thinking", "none"])
def test_every_template_of_the_grammar_is_read_as_it_was_written(
    style: str, calls: str, content: str, reasoning: str
) -> None:
    grammar = Grammar(style=style, calls=calls, content=content, reasoning=reasoning)
    found = message_format_of(ChatTemplate(grammar.template, named_tokens=NAMED))
    assert found.parts == (content == "parts")
    assert found.writes_calls == (calls != "none")
    assert found.arguments == ("text" if calls == "text" else "object")
    assert found.writes_reasoning == (reasoning != "none")
    said = [Message("user", "how?"), Message("assistant", "so", tool_calls=(ToolCall("look", {"a": 1}),))]
    assert [found.message(one) for one in said] == [grammar.sees(one) for one in said]
