from __future__ import annotations

import datetime
import json
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import TemplateError
from tutelage.render import ChatTemplate
from tutelage.render.template import TemplateRefusal, as_template_sees
from tutelage.types import Message, ToolCall

SAID = [{"role": "user", "content": "<b>'a' & \"b\"</b> é"}]


def rendered(source: str, messages: list[dict[str, Any]] | None = None, **options: Any) -> str:
    template = ChatTemplate(source, named_tokens={"eos_token": "</s>"})
    return template.render(messages or SAID, generation_prompt=options.pop("generation_prompt", False), **options)


class TestEnvironment:
    def test_generation_block_changes_nothing(self) -> None:
        with_block = "{% for m in messages %}a{% generation %}{{ m.content }}{% endgeneration %}b{% endfor %}"
        without = "{% for m in messages %}a{{ m.content }}b{% endfor %}"
        assert rendered(with_block) == rendered(without)

    def test_generation_block_keeps_its_variables(self) -> None:
        assert rendered("{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}") == "1"

    def test_an_open_generation_block_is_an_error(self) -> None:
        with pytest.raises(TemplateError):
            ChatTemplate("{% generation %}a", named_tokens={})

    def test_nothing_is_escaped(self) -> None:
        assert rendered("{{ messages[0].content }}") == SAID[0]["content"]

    @given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
    def test_tojson_is_json(self, value: Any) -> None:
        written = rendered("{{ messages[0].content | tojson }}", [{"role": "user", "content": value}])
        assert written == json.dumps(value, ensure_ascii=False)

    def test_tojson_options(self) -> None:
        said = [{"role": "user", "content": {"b": "é<", "a": 1}}]
        assert rendered("{{ messages[0].content | tojson(indent=2) }}", said) == '{\n  "b": "é<",\n  "a": 1\n}'
        assert rendered("{{ messages[0].content | tojson(ensure_ascii=True) }}", said) == '{"b": "\\u00e9<", "a": 1}'
        assert rendered("{{ messages[0].content | tojson(sort_keys=True) }}", said) == '{"a": 1, "b": "é<"}'
        assert rendered("{{ messages[0].content | tojson(separators=(',', ':')) }}", said) == '{"b":"é<","a":1}'

    def test_blocks_are_trimmed_and_loops_controlled(self) -> None:
        source = "  {% for n in [1, 2, 3] %}\n{% if n == 2 %}{% continue %}{% endif %}\n{{ n }}\n  {% endfor %}\n"
        assert rendered(source) == "1\n3\n"
        assert rendered("{% for n in [1, 2] %}{{ n }}{% break %}{% endfor %}") == "1"

    def test_named_tokens_and_arguments(self) -> None:
        template = ChatTemplate(
            "{{ eos_token }}{{ style }}", named_tokens={"eos_token": "</s>"}, arguments={"style": "plain"}
        )
        assert template.render(SAID, generation_prompt=False) == "</s>plain"
        assert template.render(SAID, generation_prompt=False, arguments={"style": "rich"}) == "</s>rich"

    def test_absent_tools_are_none(self) -> None:
        assert rendered("{{ tools is none }} {{ documents is none }}") == "True True"
        assert rendered("{{ tools | length }}", tools=[{"name": "f"}]) == "1"

    def test_generation_prompt_reaches_the_template(self) -> None:
        assert rendered("{{ add_generation_prompt }}", generation_prompt=True) == "True"


class TestClock:
    def test_the_day_is_frozen(self) -> None:
        assert rendered("{{ strftime_now('%d %B %Y') }}") == "01 January 2026"

    def test_the_day_can_be_set(self) -> None:
        template = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", named_tokens={}, date=datetime.date(2024, 2, 29))
        assert template.render(SAID, generation_prompt=False) == "2024-02-29"


class TestRefusals:
    def test_raise_exception_is_a_refusal(self) -> None:
        with pytest.raises(TemplateRefusal, match="no system turn"):
            rendered("{{ raise_exception('no system turn') }}")

    @pytest.mark.parametrize(
        "source",
        [
            "{{ ''.__class__.__mro__ }}",
            "{{ messages.append(1) }}",
            "{{ messages[0].update(role='system') }}",
            "{{ messages.__init__.__globals__ }}",
            "{{ nothing.here }}",
            "{{ 1 + 'a' }}",
            "{{ strftime_now(1) }}",
            "{% include 'secrets' %}",
        ],
    )
    def test_what_cannot_be_done_is_a_refusal(self, source: str) -> None:
        with pytest.raises(TemplateRefusal):
            rendered(source)

    @pytest.mark.parametrize(
        "source",
        [
            "{{ 1 / 0 }}",
            "{{ range(1000000000) | list }}",
            "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        ],
        ids=["division_by_zero", "range_too_big", "endless_recursion"],
    )
    def test_a_template_that_fails_on_a_row_does_not_end_the_run(self, source: str) -> None:
        with pytest.raises(TemplateRefusal):
            rendered(source)

    def test_the_insides_of_python_stay_closed(self) -> None:
        assert "class" not in rendered("a{{ ''.__class__ }}b")
        assert rendered("a{{ messages[0].content.__class__ }}b") == "ab"

    def test_arguments_cannot_replace_the_messages(self) -> None:
        with pytest.raises(TemplateRefusal):
            rendered("{{ messages | length }}", arguments={"messages": []})


class TestSyntax:
    def test_an_error_names_its_line(self) -> None:
        with pytest.raises(TemplateError) as caught:
            ChatTemplate("{% for m in messages %}\n{{ m.content }\n{% endfor %}", named_tokens={}, name="mine.jinja")
        assert caught.value.where == "mine.jinja, line 2"
        assert caught.value.fix is not None
        assert isinstance(caught.value.__cause__, jinja2.TemplateSyntaxError)

    def test_an_unknown_filter_is_an_error(self) -> None:
        with pytest.raises(TemplateError, match="does not parse") as caught:
            ChatTemplate("\n{{ messages | shout }}", named_tokens={})
        assert "shout" in str(caught.value.found)

    def test_the_hash_is_of_the_text(self) -> None:
        one, same, other = (ChatTemplate(text, named_tokens={}) for text in ("a", "a", "b"))
        assert one.sha256() == same.sha256() != other.sha256()


def test_a_message_as_the_template_sees_it() -> None:
    assert as_template_sees(Message("user", "a", weight=0.5)) == {"role": "user", "content": "a"}
    call = ToolCall("f", {"x": 1}, id="7")
    assert as_template_sees(Message("assistant", None, reasoning="hm", tool_calls=(call,))) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "7"}],
    }
    assert as_template_sees(Message("tool", "a", name="f", tool_call_id="7")) == {
        "role": "tool",
        "content": "a",
        "name": "f",
        "tool_call_id": "7",
    }
