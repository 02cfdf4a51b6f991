"""Where a turn's words stand in a rendering, by the origin of each letter."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.render import ChatTemplate
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.text_spans import end_of_prompt, foreign_text, in_order, reply_lead, span_of

PLAIN = """\
{%- for m in messages -%}{{- '[' + m.role + ']' + m.content + '$' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[assistant]' -}}{%- endif -%}
"""


def traced(source: str, *contents: str, asked: bool = False) -> Traced:
    roles = ("user", "assistant") * len(contents)
    messages: list[dict[str, Any]] = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]
    return ChatTemplate(source, named_tokens={}).trace(messages, generation_prompt=asked)


def words(rendering: Traced, message: int, start: int = 0) -> str | None:
    place = span_of(rendering, message, start=start)
    return None if place is None else rendering.text[place.start : place.end]


class TestPlace:
    def test_the_words_of_each_message_are_told_apart_even_where_they_are_the_same(self) -> None:
        rendering = traced(PLAIN, "yes", "yes", "yes", "yes")
        places = [span_of(rendering, index) for index in range(4)]
        assert [one.start for one in places if one] == [6, 21, 31, 46]
        assert [words(rendering, index) for index in range(4)] == ["yes"] * 4

    def test_words_that_look_like_the_templates_own_are_the_messages(self) -> None:
        rendering = traced(PLAIN, "[assistant]", "[user]$")
        assert words(rendering, 1) == "[user]$"
        assert rendering.text[: span_of(rendering, 1).start] == "[user][assistant]$[assistant]"

    def test_what_stands_before_is_the_templates_text_after_the_words_of_others(self) -> None:
        place = span_of(traced(PLAIN, "hello", "yes"), 1)
        assert place is not None
        assert place.prefix_text == "$[assistant]"
        assert place.neighbor == (0, "content", 4)

    def test_a_first_message_has_no_neighbour(self) -> None:
        place = span_of(traced(PLAIN, "hello"), 0)
        assert place is not None
        assert (place.prefix_text, place.neighbor) == ("[user]", None)

    def test_the_end_of_a_prompt_reads_as_what_stands_before_the_words(self) -> None:
        place = span_of(traced(PLAIN, "hello", "yes"), 1)
        assert place is not None
        assert end_of_prompt(traced(PLAIN, "hello", asked=True)) == (place.prefix_text, place.neighbor)

    def test_trimmed_words_begin_where_they_are_written(self) -> None:
        rendering = traced(PLAIN.replace("m.content", "m.content | trim"), "hello", " yes\n")
        assert words(rendering, 1) == "yes"

    @pytest.mark.parametrize("content", ["", " "])
    def test_no_words_have_no_place(self, content: str) -> None:
        assert span_of(traced(PLAIN.replace("m.content", "m.content | trim"), "hello", content), 1) is None

    def test_earlier_words_do_not_count_from_a_start_on(self) -> None:
        twice = PLAIN.replace("'$'", "'$' + m.content")
        rendering = traced(twice, "hello", "yes")
        assert words(rendering, 1) == "yes$yes"
        assert words(rendering, 1, start=rendering.text.index("yes") + 3) == "yes"


class TestWitnesses:
    def test_words_of_another_message_are_strangers(self) -> None:
        rendering = traced(PLAIN, "hello", "yes")
        assert foreign_text(rendering, 1, 0, len(rendering.text)) == "hello"
        place = span_of(rendering, 1)
        assert place is not None
        assert foreign_text(rendering, 1, place.start, len(rendering.text)) is None

    def test_a_text_written_once_is_in_order(self) -> None:
        rendering = traced(PLAIN, "hello", "yes")
        assert in_order(rendering, 1, 0, len(rendering.text))

    @pytest.mark.parametrize(
        "written", ["m.content + m.content", "m.content[2:] + m.content[:2]", "m.content | reverse"]
    )
    def test_a_text_written_twice_or_backwards_is_not(self, written: str) -> None:
        rendering = traced(PLAIN.replace("m.content", f"({written})"), "hello", "yes")
        assert rendering.followed
        assert not in_order(rendering, 1, 0, len(rendering.text))


class TestBeyond:
    @pytest.mark.parametrize(
        ("given", "written", "left"),
        [
            ("$[assistant]", "$[assistant]", ""),
            ("$[assistant]\n", "$[assistant]\n<think>\n", "<think>\n"),
            ("BOT: ", "BOT:", ""),
            ("BOT:\n\n", "BOT:\n", ""),
            ("BOT:", "BOT:\n", "\n"),
            ("BOT: ", "BOT:\n\nso ", "so "),
            ("(of the system) BOT:", "BOT:", ""),
        ],
    )
    def test_a_reply_begins_with_what_is_left(self, given: str, written: str, left: str) -> None:
        assert reply_lead(given, written) == left

    @pytest.mark.parametrize(
        ("given", "written"),
        [
            ("<a>", "<b>"),
            ("BOT: so", "BOT:"),
            ("", " (earlier)\nBOT:"),
            ("\n", " (earlier)\nBOT:"),
            ("$BOT:", " (earlier)$BOT"),
        ],
    )
    def test_texts_that_differ_leave_it_open(self, given: str, written: str) -> None:
        assert reply_lead(given, written) is None
