"""Rows that are proven as a server may have them too: reasoning taken out of the content, or asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.serving_oracle import (
    CHATML,
    LATEST_REASONING,
    Build,
    dropped,
    pair,
    proven,
    remarks,
    replies,
    talk,
    thinking,
)
from tutelage.render import ChatTemplate
from tutelage.render.token_roles import token_roles
from tutelage.types import Conversation, Drop, Message, Prompt

ASKED = Message("user", "2+3?")
INLINE = talk(*pair("2+3?", "<think>\nadd them\n</think>\n\n5"))
SENTENCE = (
    LATEST_REASONING.replace("'<think>\\n' + ", "")
    .replace("'\\n</think>\\n\\n'", "'\\n[FINAL]\\n'")
    .replace("assistant\\n' -}}{%- endif", "assistant\\nHere are my reasoning steps:\\n' -}}{%- endif")
)
RETAGGED = (
    LATEST_REASONING.replace("<think>", "<own:think>")
    .replace("</think>", "</own:think>")
    .replace("{{- message['content']", "{{- message['content'].split('</think>')[-1]")
)
SWITCHED = LATEST_REASONING.replace(
    "assistant\\n' -}}{%- endif",
    "assistant\\n' -}}{%- if not NAME -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- endif",
)


def served(outcome: Prompt | Drop) -> list[int]:
    assert isinstance(outcome, Prompt)
    return outcome.ids.tolist()


def assert_same(some: Any, others: Any) -> None:
    assert [(one.ids.tolist(), one.weights.tolist()) for one in some] == [
        (one.ids.tolist(), one.weights.tolist()) for one in others
    ]


class TestReasoningOfTheContent:
    @pytest.mark.parametrize(
        ("template", "reply"),
        [
            (SENTENCE, "add them\n[FINAL]\n5<|im_end|>"),
            (RETAGGED, "<own:think>\nadd them\n</own:think>\n\n5<|im_end|>"),
        ],
    )
    def test_m7_it_goes_to_its_field_where_the_template_has_another_place_for_it(
        self, with_template: Build, template: str, reply: str
    ) -> None:
        renderer = with_template(template)
        assert replies(renderer, INLINE) == [reply]
        assert remarks(renderer, INLINE) == {
            "reasoning_moved": "message 1: the reasoning of the content is handed over as reasoning_content"
        }
        assert_same(proven(renderer, INLINE), proven(renderer, talk(ASKED, thinking())))

    def test_m7_so_it_does_in_the_turns_before(self, with_template: Build) -> None:
        again = pair("And 3+4?", "<think>\nmore\n</think>\n\n7")
        renderer = with_template(SENTENCE)
        row, by_field = talk(*INLINE.messages, *again), talk(ASKED, thinking(), again[0], thinking("7", "more"))
        assert_same(proven(renderer, row), proven(renderer, by_field))
        prompts = [one.ids[: one.turns[-1].prompt_end].tolist() for one in proven(renderer, row)]
        assert served(renderer.prompt(row)) in prompts

    def test_m7_where_it_is_written_as_it_stands_it_stays(self, with_template: Build) -> None:
        renderer = with_template(LATEST_REASONING)
        assert replies(renderer, INLINE) == ["<think>\nadd them\n</think>\n\n5<|im_end|>"]
        assert remarks(renderer, INLINE) == {}

    def test_m7_a_template_that_writes_no_field_keeps_its_refusal(self, with_template: Build) -> None:
        judge = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<judge>\\n' -}}{%- endif")
        assert dropped(with_template(judge), INLINE).reason == "prompt_not_a_prefix"

    def test_m7_a_block_of_a_user_or_without_an_end_is_none(self, with_template: Build) -> None:
        renderer = with_template(SENTENCE)
        assert dropped(renderer, talk(*pair("2+3?", "<think>\nadd them, 5"))).reason == "prompt_not_a_prefix"
        row = talk(Message("user", "<think>a</think>2+3?"), Message("assistant", "<think>add them</think>5"))
        (example,) = proven(renderer, row)
        assert "<think>a</think>2+3?" in renderer.tokenizer.decode(example.ids.tolist())


class TestClosedBlock:
    THINKS = talk(ASKED, thinking())

    @pytest.mark.parametrize("name", ["enable_thinking", "reasoning_mode"])
    def test_m6_the_argument_that_opens_it_is_given_and_told(self, with_template: Build, name: str) -> None:
        template = SWITCHED.replace("NAME", name)
        opens = with_template(template, closed_reasoning="open")
        asked = talk(*self.THINKS.messages, template_arguments={name: True})
        assert_same(proven(opens, self.THINKS), proven(with_template(template), asked))
        assert remarks(opens, self.THINKS)["reasoning_opened"].startswith(f"served with {name} = true")
        (example,) = proven(opens, self.THINKS)
        assert served(opens.prompt(self.THINKS)) == example.ids[: example.turns[0].prompt_end].tolist()

    def test_m6_its_tokens_have_the_roles_of_the_row_that_is_proven(self, with_template: Build) -> None:
        opens = with_template(SWITCHED.replace("NAME", "enable_thinking"), closed_reasoning="open")
        (example,) = proven(opens, self.THINKS)
        asked = talk(*self.THINKS.messages, template_arguments={"enable_thinking": True})
        roles, expected = (token_roles(one, example, opens) for one in (self.THINKS, asked))
        assert roles.codes.tolist() == expected.codes.tolist()
        assert roles.traced

    def test_m6_by_default_the_row_goes(self, with_template: Build) -> None:
        drop = dropped(with_template(SWITCHED.replace("NAME", "enable_thinking")), self.THINKS)
        assert drop.reason == "reasoning_not_in_reply"

    def test_m6_rows_without_reasoning_stay_as_they_are_served(self, with_template: Build) -> None:
        template, row = SWITCHED.replace("NAME", "enable_thinking"), talk(*pair("2+3?", "5"))
        opens, plain = with_template(template, closed_reasoning="open"), with_template(template)
        assert_same(proven(opens, row), proven(plain, row))
        assert remarks(opens, row) == remarks(plain, row)
        assert served(opens.prompt(row)) == served(plain.prompt(row))

    def test_m6_an_argument_that_somebody_gave_is_not_changed(self, with_template: Build) -> None:
        template = SWITCHED.replace("NAME", "enable_thinking")
        opens = with_template(template, closed_reasoning="open")
        row = Conversation(self.THINKS.messages, self.THINKS.address, template_arguments={"enable_thinking": False})
        assert dropped(opens, row).reason == "reasoning_not_in_reply"
        for_all = ChatTemplate(
            template, named_tokens=opens.tokenizer.named_tokens, arguments={"enable_thinking": False}
        )
        given = type(opens)(opens.tokenizer, for_all, closed_reasoning="open")
        assert dropped(given, self.THINKS).reason == "reasoning_not_in_reply"

    def test_m6_an_argument_of_another_name_is_not_guessed(self, with_template: Build) -> None:
        opens = with_template(SWITCHED.replace("NAME", "deep_mode"), closed_reasoning="open")
        assert dropped(opens, self.THINKS).reason == "reasoning_not_in_reply"

    def test_m6_a_mixed_row_is_served_with_it_in_every_turn(self, with_template: Build) -> None:
        row = talk(*pair("2+3?", "5"), Message("user", "3+4?"), thinking("7", "more"))
        opens = with_template(SWITCHED.replace("NAME", "enable_thinking"), closed_reasoning="open")
        assert replies(opens, row) == ["5<|im_end|>", "<think>\nmore\n</think>\n\n7<|im_end|>"]
