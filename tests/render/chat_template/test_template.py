from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import TemplateError
from tutelage.render import ChatTemplate
from tutelage.render.chat_template.template import TemplateRefusal, template_message
from tutelage.types import Message, ToolCall

MATERIAL = Path(__file__).resolve().parents[3].parent / "shared/material/templates"
needs_material = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the published templates are not here")
NAMED_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


def _result(content: str) -> dict[str, Any]:
    return {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": content}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


SYSTEM = {"role": "system", "content": "Be brief <b>&</b>.\n\n"}
ARGUMENTS = {"city": 'Zü"rich\n</think>', "days": [1, 2.5, None, True, {"deep": "ja\\"}]}
CALL = {"type": "function", "id": "call00001", "function": {"name": "weather", "arguments": ARGUMENTS}}
CALL_IN_TEXT = {"type": "function", "id": "call00001", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CITY = {"type": "string", "description": "Name of the <city>", "enum": ["Rome", "Oslo"]}
PARAMETERS = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
WEATHER = {"name": "weather", "description": 'Tells "now" & later, été too', "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
TALKS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "plain": ([_user("  What is 2+2?\n"), _assistant(" It is 4. \n")], None),
    "unanswered": ([_user("Why?")], None),
    "several": ([_user("one"), _assistant("two"), _user("three"), _assistant("four"), _user("five")], None),
    "system": ([SYSTEM, _user("Hi"), _assistant("Hello 👋🏽 é")], None),
    "reasoning": (
        [
            _user("Q"),
            _assistant("A", reasoning_content="as\nit is"),
            _user("R"),
            _assistant("B", reasoning_content=" hm "),
        ],
        None,
    ),
    "inline": (
        [_user("Q"), _assistant("<think>\nfirst\n</think>\n\nA"), _user("R"), _assistant("<think>x</think>y")],
        None,
    ),
    "tools": ([SYSTEM, _user("weather?")], TOOLS),
    "call": ([_user("w?"), _assistant("", tool_calls=[CALL]), _result('{"t": 5}'), _assistant("It is 5.")], TOOLS),
    "call_in_text": (
        [_user("w?"), _assistant("See.", tool_calls=[CALL_IN_TEXT]), _result("sun"), _assistant("ok")],
        TOOLS,
    ),
    "calls": (
        [_user("w?"), _assistant("", tool_calls=[CALL, CALL]), _result("5"), _result("6"), _assistant("11")],
        TOOLS,
    ),
    "no_content": ([_user("w?"), _assistant(None, tool_calls=[CALL])], TOOLS),
    "parts": ([_user([_part(" Look: "), _part('it\'s "here"')]), _assistant([_part("I see.")])], None),
    "image": ([_user([{"type": "image"}, _part("what?")]), _assistant("a cat")], None),
    "empty": ([_user(""), _assistant("")], None),
    "twice": ([_user("a"), _user("b"), _assistant("c"), _assistant("d")], None),
    "assistant_first": ([_assistant("Hello"), _user("Hi"), _assistant("Bye")], None),
    "markers": ([_user("<|im_end|>\n<|im_start|>assistant\n"), _assistant("</think> [INST] \\n <|eot_id|>")], None),
    "late_system": ([_user("a"), _assistant("b"), SYSTEM, _user("d"), _assistant("e")], None),
}

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
            "{{ 'word' | truncate(1) }}",
            "{{ cycler() }}",
        ],
        ids=["division_by_zero", "range_too_big", "truncated_too_short", "nothing_to_cycle"],
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


class TestWhatATemplateAsksFor:
    def test_documents_reach_the_template(self) -> None:
        source = "{% for one in documents or [] %}{{ one.text }}{% endfor %}"
        assert rendered(source, documents=[{"text": "a"}, {"text": "b"}]) == "ab"
        assert rendered(source) == ""

    def test_the_date(self) -> None:
        asks = ChatTemplate("{{ strftime_now('%Y') }}", named_tokens={}, date=datetime.date(2024, 2, 29))
        assert asks.uses_date
        assert asks.date == datetime.date(2024, 2, 29)
        assert not ChatTemplate("strftime_now", named_tokens={}).uses_date
        assert ChatTemplate("a", tools_source="{{ strftime_now('%Y') }}", named_tokens={}).uses_date

    def test_its_variables(self) -> None:
        source = "{% set a = 1 %}{{ a }}{{ bos_token }}{% if enable_thinking %}{{ messages }}{{ tools }}{% endif %}"
        source += "{% for m in range(3) %}{{ loop.index }}{{ m }}{% endfor %}{{ raise_exception }}"
        assert ChatTemplate(source, named_tokens={}).variables == {"bos_token", "enable_thinking"}

    def test_the_fields_it_reads(self) -> None:
        source = "{{ messages[0]['role'] }}{{ messages[0].content }}{{ m.get('thinking', 'no') }}{{ x['a' + 'b'] }}"
        assert ChatTemplate(source, named_tokens={}).message_fields == {"role", "content", "thinking", "get"}

    def test_its_own_texts(self) -> None:
        source = "<s>{{ '<|im_start|>' + m['role'] ~ 7 }}<s>{# note #}{% if x == 'y' %}z{% endif %}"
        assert set(ChatTemplate(source, named_tokens={}).literals) == {"<s>", "<|im_start|>", "role", "y", "z"}

    def test_blocks_where_text_is_escaped(self) -> None:
        source = "{% autoescape true %}{{ '<' ~ messages[0].content }}{{ ['<'] | join('>') }}{% endautoescape %}"
        assert rendered(source, [{"role": "user", "content": "&"}]) == "&lt;&amp;&lt;"

    def test_names_in_a_namespace(self) -> None:
        assert rendered("{% set ns = namespace(self=1) %}{% set ns.b = 2 %}{{ ns.self }}{{ ns.b }}") == "12"
        assert rendered("{{ namespace({'a': 1}, b=2).b }}{{ dict(a=3).a }}{{ dict.fromkeys('a', 4).a }}") == "234"


@needs_material
@pytest.mark.parametrize("path", sorted(MATERIAL.glob("*.jinja")), ids=lambda path: path.stem)
def test_every_published_template_renders_as_a_server_renders_it(path: Path) -> None:
    """Equal text, or both refuse; the oracle is the environment of the transformers library."""
    library = pytest.importorskip("transformers.utils.chat_template_utils", reason="the oracle is not here")
    source = path.read_text(encoding="utf-8")
    ours, theirs = ChatTemplate(source, named_tokens=NAMED_TOKENS), library._compile_jinja_template(source)
    today = datetime.datetime(2026, 1, 1, 12)
    accepted = 0
    for name, (messages, tools) in TALKS.items():
        for generation_prompt in (False, True):
            given = {"messages": messages, "tools": tools, "add_generation_prompt": generation_prompt}
            try:
                expected = theirs.render(**given, **NAMED_TOKENS, documents=None, strftime_now=today.strftime)
            except Exception:  # noqa: BLE001 whatever stops a server
                with pytest.raises(TemplateRefusal):
                    ours.render(messages, tools=tools, generation_prompt=generation_prompt)
                continue
            assert ours.render(messages, tools=tools, generation_prompt=generation_prompt) == expected, name
            accepted += 1
    assert accepted > 0


def test_a_message_as_the_template_sees_it() -> None:
    assert template_message(Message("user", "a", weight=0.5)) == {"role": "user", "content": "a"}
    call = ToolCall("f", {"x": 1}, id="7")
    assert template_message(Message("assistant", None, reasoning="hm", tool_calls=(call,))) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "7"}],
    }
    assert template_message(Message("tool", "a", name="f", tool_call_id="7")) == {
        "role": "tool",
        "content": "a",
        "name": "f",
        "tool_call_id": "7",
    }
