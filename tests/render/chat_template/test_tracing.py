from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.render.chat_template.test_template import MATERIAL, NAMED_TOKENS, TALKS, needs_material
from tutelage.render import ChatTemplate
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.render.chat_template.tracing import TEMPLATE_TEXT, Source, Traced, TracedText, joined, runs_of

CONTENT = "  Hello <b>wörld</b>\n"
WEATHER = {"city": 'Zü"rich\n', "days": [1, "two"]}


def traced(source: str, *contents: Any, tools: Any = None, **arguments: Any) -> Traced:
    template = ChatTemplate(source, named_tokens={"eos_token": "</s>"})
    messages = [{"role": "user", "content": content} for content in (contents or (CONTENT,))]
    shown = template.trace(messages, generation_prompt=False, tools=tools, arguments=arguments)
    assert shown.text == template.render(messages, generation_prompt=False, tools=tools, arguments=arguments)
    assert shown.followed
    assert shown.source.dtype == shown.offset.dtype == np.int32
    assert len(shown.source) == len(shown.offset) == len(shown.text)
    return shown


def origins(shown: Traced) -> list[tuple[str, str, int]]:
    """(character, field it came from, offset there); a field of "" is the template's own."""
    return [
        (character, "" if source < 0 else shown.sources[source].field, int(offset))
        for character, source, offset in zip(shown.text, shown.source, shown.offset, strict=True)
    ]


def from_content(shown: Traced, content: str = CONTENT) -> str:
    """The text that came from contents; each character is checked against the place it claims to come from."""
    kept = ""
    for character, field, offset in origins(shown):
        if field == "content":
            assert content[offset] == character
            kept += character
        elif field == "":
            assert offset == TEMPLATE_TEXT
    return kept


class TestOperations:
    @pytest.mark.parametrize(
        ("expression", "kept"),
        [
            ("content", CONTENT),
            ("content | trim", "Hello <b>wörld</b>"),
            ("content.strip() + '!'", "Hello <b>wörld</b>"),
            ("content.lstrip()", "Hello <b>wörld</b>\n"),
            ("content.rstrip('\\n')", "  Hello <b>wörld</b>"),
            ("'[' + content + ']'", CONTENT),
            ("'[' ~ content ~ 7 ~ ']'", CONTENT),
            ("content[2:7]", "Hello"),
            ("content[-5:]", "</b>\n"),
            ("content[::-1]", CONTENT[::-1]),
            ("content[2]", "H"),
            ("content * 2", CONTENT * 2),
            ("content | first", " "),
            ("content | last", "\n"),
            ("content | list | join('-')", CONTENT),
            ("content | reverse", CONTENT[::-1]),
            ("content.split('<b>')[1]", "wörld</b>\n"),
            ("content.split() | join('_')", "Hello<b>wörld</b>"),
            ("content.rsplit('<', 1) | last", "/b>\n"),
            ("content.partition('<b>') | join('|')", CONTENT),
            ("content.rpartition('<') | last", "/b>\n"),
            ("content.splitlines()[0]", "  Hello <b>wörld</b>"),
            ("content.removeprefix('  ').removesuffix('\\n')", "Hello <b>wörld</b>"),
            ("content.replace('<b>', '[')", "  Hello wörld</b>\n"),
            ("content | replace('Hello', 'Bye')", "   <b>wörld</b>\n"),
            ("'say: X!'.replace('X', content)", CONTENT),
            ("'say: X!' | replace('X', content)", CONTENT),
            ("', '.join([content, content])", CONTENT * 2),
            ("messages | map(attribute='content') | join(', ')", CONTENT),
            ("content | string", CONTENT),
            ("content | safe", CONTENT),
            ("(content | trim) | default('none', true)", "Hello <b>wörld</b>"),
            ("content | indent(4, first=true)", CONTENT),
            ("content | center(40)", CONTENT),
            ("content.ljust(40) ~ content.rjust(40)", CONTENT * 2),
            ("'%s and %s' % (content, 1)", CONTENT),
            ("'%s%%' | format(content)", CONTENT),
            ("'{} {x}'.format(content, x=1)", CONTENT),
            ("'{a}'.format_map({'a': content})", CONTENT),
            ("content | truncate(9, true, '')", "  Hello <"),
            ("namespace(a=content).a", CONTENT),
            ("dict(a=content)['a']", CONTENT),
            ("[content] | sort | first", CONTENT),
            ("{'k': content} | dictsort | map('last') | join", CONTENT),
            ("{'k': content}.items() | map('last') | join", CONTENT),
            ("content | select('ne', ' ') | join", "Hello<b>wörld</b>\n"),
            ("content if content is string else 'other'", CONTENT),
            ("(content ~ '') | trim | trim", "Hello <b>wörld</b>"),
        ],
    )
    def test_origins_survive(self, expression: str, kept: str) -> None:
        shown = traced("{% set content = messages[0].content %}<{{ " + expression + " }}>")
        assert from_content(shown) == kept

    @pytest.mark.parametrize("name", ["upper", "lower", "capitalize", "title"])
    def test_letters_that_change_case_keep_their_place(self, name: str) -> None:
        for call in (f"messages[0].content | {name}", f"messages[0].content.{name}()"):
            shown = traced("{{ " + call + " }}", "one ßtwo")
            assert [offset for _, field, offset in origins(shown)] == sorted(shown.offset)
            assert {field for _, field, _ in origins(shown)} == {"content"}

    def test_a_letter_that_becomes_two_gives_both_its_place(self) -> None:
        assert origins(traced("{{ messages[0].content | upper }}", "aß")) == [
            ("A", "content", 0),
            ("S", "content", 1),
            ("S", "content", 1),
        ]

    def test_what_is_escaped_has_the_place_of_its_character(self) -> None:
        assert origins(traced("{{ messages[0].content | e }}", "a<")) == [
            ("a", "content", 0),
            *[(character, "content", 1) for character in "&lt;"],
        ]

    def test_safe_text_escapes_what_is_added_to_it_and_keeps_origins(self) -> None:
        shown = traced("{{ ('<' | safe) + messages[0].content }}{{ (messages[0].content | safe) + '<' }}", "a<")
        assert shown.text == "<a&lt;a<&lt;"
        assert [(character, offset) for character, field, offset in origins(shown) if field][-2:] == [
            ("a", 0),
            ("<", 1),
        ]

    def test_numbers_and_loop_counters_are_the_templates_own(self) -> None:
        shown = traced("{% for m in messages %}{{ loop.index }}{{ m.content | length }}{% endfor %}", "abc")
        assert set(shown.source) == {TEMPLATE_TEXT}

    def test_thinking_is_split_from_the_answer(self) -> None:
        source = (
            "{% set content = messages[0].content %}"
            "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
            "{% set answer = content.split('</think>')[-1].lstrip('\\n') %}"
            "<r>{{ thought }}</r>{{ answer }}"
        )
        content = "<think>\nso it is\n</think>\n\nYes </r>"
        shown = traced(source, content)
        assert shown.text == "<r>so it is</r>Yes </r>"
        assert from_content(shown, content) == "so it isYes </r>"

    def test_macros_calls_and_set_blocks(self) -> None:
        source = (
            "{% macro bold(text) %}<b>{{ text | trim }}{{ caller() if caller else '' }}</b>{% endmacro %}"
            "{% set kept %}({{ messages[0].content }}){% endset %}"
            "{{ bold(kept) }}{% call bold('x') %}{{ messages[0].content }}{% endcall %}"
            "{% filter trim %}{{ messages[0].content }}{% endfilter %}"
            "{% block part %}{{ messages[0].content }}{% endblock %}{{ self.part() }}"
            "{% generation %}{{ messages[0].content }}{% endgeneration %}"
        )
        assert from_content(traced(source, " a "), " a ") == " a " + " a " + "a" + " a " + " a " + " a "

    def test_namespaces_loops_and_recursion(self) -> None:
        source = (
            "{% set ns = namespace(all='') %}"
            "{% for m in messages %}{% set ns.all = ns.all ~ m.content + ';' %}{% endfor %}{{ ns.all }}"
            "{% for m in messages recursive %}{{ m if m is string else loop([m.content]) }}{% endfor %}"
        )
        shown = traced(source, "ab", "cd")
        assert shown.text == "ab;cd;abcd"
        assert [shown.sources[source].message for source in shown.source if source != TEMPLATE_TEXT] == [0, 0, 1, 1] * 2


class TestSources:
    def test_every_string_has_its_path(self) -> None:
        template = ChatTemplate(
            "{{ messages | tojson }}{{ tools | tojson }}{{ documents | tojson }}{{ eos_token }}{{ style }}",
            named_tokens={"eos_token": "</s>"},
        )
        call = {"type": "function", "function": {"name": "f", "arguments": {"city": ["Rome"]}}}
        shown = template.trace(
            [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
            ],
            generation_prompt=True,
            tools=[{"name": "f"}],
            documents=[{"text": "d"}],
            arguments={"style": "plain"},
        )
        used = [shown.sources[index] for index in dict.fromkeys(shown.source.tolist()) if index >= 0]
        assert used == [
            Source(0, "role"),
            Source(0, "content[0].type"),
            Source(0, "content[0].text"),
            Source(1, "role"),
            Source(1, "reasoning_content"),
            Source(1, "tool_calls[0].type"),
            Source(1, "tool_calls[0].function.name"),
            Source(1, "tool_calls[0].function.arguments.city[0]"),
            Source(None, "tools[0].name"),
            Source(None, "documents[0].text"),
            Source(None, "argument.eos_token"),
            Source(None, "argument.style"),
        ]

    def test_equal_texts_are_told_apart(self) -> None:
        shown = traced("{% for m in messages %}{{ m.content }}{% endfor %}", "same", "same")
        assert [shown.sources[source].message for source in shown.source] == [0] * 4 + [1] * 4

    def test_keys_are_the_templates_own(self) -> None:
        shown = traced("{{ messages[0].content | tojson }}", {"key": "value"})
        assert "".join(character for character, field, _ in origins(shown) if field) == "value"

    def test_what_the_template_writes_itself_is_its_own_even_if_it_is_the_same(self) -> None:
        shown = traced("{{ 'user' if messages[0].role == 'user' }}{{ messages[0].role }}")
        assert [field for _, field, _ in origins(shown)] == [""] * 4 + ["role"] * 4

    def test_a_row_that_the_template_refuses_is_refused_when_traced(self) -> None:
        template = ChatTemplate("{{ raise_exception('no') }}", named_tokens={})
        with pytest.raises(TemplateRefusal, match="no"):
            template.trace([{"role": "user", "content": "a"}], generation_prompt=False)

    def test_an_empty_text_has_no_origins(self) -> None:
        shown = traced("{{ messages[0].content }}", "")
        assert (shown.text, len(shown.source), len(shown.offset)) == ("", 0, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class TestNotations:
    @given(
        value=JSON,
        ensure_ascii=st.booleans(),
        sort_keys=st.booleans(),
        indent=st.none() | st.integers(0, 3) | st.just("--"),
        separators=st.none() | st.just((",", ":")) | st.just((" ; ", " = ")),
    )
    def test_json_is_that_of_python_with_each_option(self, value: Any, **options: Any) -> None:
        names = ", ".join(f"{name}={name}" for name in options)
        shown = traced("{{ messages[0].content | tojson(" + names + ") }}", value, **options)
        assert shown.text == json.dumps(value, **options)
        for _, field, offset in origins(shown):
            assert (offset == TEMPLATE_TEXT) == (field == "")

    def test_each_character_of_a_json_escape_has_the_place_of_its_character(self) -> None:
        shown = traced("{{ messages[0].content | tojson }}", WEATHER)
        expected = [
            ("Z", 0),
            ("ü", 1),
            ("\\", 2),
            ('"', 2),
            ("r", 3),
            ("i", 4),
            ("c", 5),
            ("h", 6),
            ("\\", 7),
            ("n", 7),
        ]
        found = [(character, offset) for character, field, offset in origins(shown) if field == "content.city"]
        assert found == expected
        assert "".join(character for character, field, _ in origins(shown) if field == "content.days[1]") == "two"

    def test_an_ascii_escape_has_the_place_of_its_character(self) -> None:
        shown = traced("{{ messages[0].content | tojson(ensure_ascii=true) }}", "a😀")
        assert [offset for _, field, offset in origins(shown) if field] == [0] + [1] * 12

    @given(value=st.lists(JSON) | st.dictionaries(st.text(), JSON))
    def test_python_notation_is_that_of_python(self, value: Any) -> None:
        assert traced("{{ messages[0].content }}", value).text == str(value)

    @given(text=st.text(alphabet="ab'\"\\\n\x00é\u2028😀", min_size=1))
    def test_each_character_of_a_python_escape_has_the_place_of_its_character(self, text: str) -> None:
        shown = traced("{{ messages[0].content }}", [text])
        assert shown.offset[0] == shown.offset[-1] == TEMPLATE_TEXT
        assert set(shown.offset[2:-2].tolist()) == set(range(len(text)))
        assert (np.diff(shown.offset[2:-2]) >= 0).all()


TEXT = st.text(alphabet="ab \n<ßİΣ", max_size=12)
PIECE = st.text(alphabet="ab \n<", min_size=1, max_size=2)
SAME_PLACE: dict[str, Callable[[Any, Any, int], Any]] = {
    "add": lambda text, piece, _: piece + text + piece,
    "times": lambda text, _, count: text * count,
    "item": lambda text, _, count: (text + "!")[count % (len(text) + 1)],
    "slice": lambda text, _, count: text[count:-1],
    "stride": lambda text, _, count: text[:: count or -1],
    "strip": lambda text, piece, _: text.strip(piece),
    "strip_space": lambda text, *_: text.strip() + text.lstrip() + text.rstrip(),
    "split": lambda text, piece, count: piece.join(text.split(piece, count)),
    "split_space": lambda text, _, count: "|".join(text.split(None, count)),
    "rsplit": lambda text, piece, count: "|".join(text.rsplit(piece, count)),
    "rsplit_space": lambda text, _, count: "|".join(text.rsplit(None, count)),
    "splitlines": lambda text, _, count: "|".join(text.splitlines(count > 1)),
    "partition": lambda text, piece, _: "|".join((*text.partition(piece), *text.rpartition(piece))),
    "replace": lambda text, piece, count: text.replace(piece, "xyz", count),
    "prefix": lambda text, piece, _: text.removeprefix(piece) + text.removesuffix(piece),
    "pad": lambda text, _, count: text.center(9 + count, "*") + text.ljust(9) + text.rjust(9),
    "iterate": lambda text, *_: "".join(one for one in text if one != "a"),
    "format": lambda text, *_: f"{text}{text!s}",
}


class TestTracedText:
    @given(text=TEXT, piece=PIECE, count=st.integers(-1, 4))
    @pytest.mark.parametrize("name", SAME_PLACE)
    def test_it_does_what_str_does_and_each_character_stands_where_it_says(
        self, name: str, text: str, piece: str, count: int
    ) -> None:
        made = SAME_PLACE[name](TracedText(text, ((0, 0, len(text)),) if text else ()), piece, count)
        assert made == SAME_PLACE[name](text, piece, count)
        runs = runs_of(made)
        assert sum(length for *_, length in runs) == len(made)
        at = 0
        for source, start, length in runs:
            assert length > 0
            if source != TEMPLATE_TEXT:
                assert made[at : at + length] == text[start : start + length]
            at += length

    @given(text=TEXT)
    @pytest.mark.parametrize("name", ["upper", "lower", "title", "capitalize", "casefold", "swapcase"])
    def test_it_changes_case_as_str_does(self, name: str, text: str) -> None:
        made = getattr(TracedText(text, ((0, 0, len(text)),) if text else ()), name)()
        assert made == getattr(text, name)()
        assert sum(length for *_, length in runs_of(made)) == len(made)

    def test_it_is_the_str_it_is(self) -> None:
        text = TracedText("abc", ((0, 0, 3),))
        assert text == "abc"
        assert hash(text) == hash("abc")
        assert {"abc": 1}[text] == 1
        assert repr(text) == "'abc'"
        assert isinstance(text, str)
        assert json.dumps([text]) == '["abc"]'
        assert text.encode() == b"abc"
        assert text.find("c") == 2

    def test_a_template_sees_nothing_on_it_that_a_str_has_not(self) -> None:
        assert all(name.startswith("_") for name in set(dir(TracedText)) - set(dir(str)))

    def test_joining_plain_texts_gives_no_origin(self) -> None:
        assert runs_of(joined("-", ["a", "b"])) == ((TEMPLATE_TEXT, TEMPLATE_TEXT, 3),)


@needs_material
@pytest.mark.parametrize("path", sorted(MATERIAL.glob("*.jinja")), ids=lambda path: path.stem)
def test_a_traced_text_is_the_rendered_text_for_every_template(path: Path) -> None:
    template = ChatTemplate(path.read_text(encoding="utf-8"), named_tokens=NAMED_TOKENS, name=path.name)
    accepted = 0
    for messages, tools in TALKS.values():
        for generation_prompt in (False, True):
            options: dict[str, Any] = {"generation_prompt": generation_prompt, "tools": tools}
            try:
                text = template.render(messages, **options)
            except TemplateRefusal:
                continue
            shown = template.trace(messages, **options)
            assert (shown.text, shown.followed) == (text, True)
            assert len(shown.source) == len(shown.offset) == len(text)
            accepted += 1
    assert accepted > 0
