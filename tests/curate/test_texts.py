"""The texts of a row, and their words."""

from __future__ import annotations

import pytest

from tests.support.conversations import answer, talk, user
from tutelage.curate.texts import all_text, prompt_text, reply_text, system_text, words
from tutelage.types import Address, Conversation, Message, ToolCall

ROW = talk(
    Message("system", "Be short."),
    user("How warm is it?"),
    answer(None, reasoning="I must ask.", tool_calls=(ToolCall("weather", {"city": "Köln", "at": 1}),)),
    Message("tool", "21"),
    answer("It is 21 degrees."),
)


def test_each_text_has_the_turns_of_its_side():
    assert prompt_text(ROW) == "How warm is it?"
    assert system_text(ROW) == "Be short."
    assert reply_text(ROW) == 'I must ask.\n\nweather {"at": 1, "city": "Köln"}\n\nIt is 21 degrees.'
    assert all_text(ROW) == (
        'Be short.\n\nHow warm is it?\n\nI must ask.\n\nweather {"at": 1, "city": "Köln"}\n\n21\n\nIt is 21 degrees.'
    )


def test_the_text_of_a_document_is_learned_and_asked_by_nobody():
    document = Conversation((Message("text", "Once."),), Address("a.txt", 1))
    assert (prompt_text(document), reply_text(document)) == ("", "Once.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CAT's cat_flap, 3.5 m!", ["the", "cat", "s", "cat_flap", "3", "5", "m"]),
        ("Straße", ["strasse"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("日本語 text ไทย", ["日", "本", "語", "text", "ไ", "ท", "ย"]),
        ("안녕하세요 여러분", ["안녕하세요", "여러분"]),
        ("—…!", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected


def test_a_text_has_the_same_words_in_either_unicode_form_and_case():
    assert words("ÉCOLE où É") == words("e\u0301cole ou\u0300 É")
