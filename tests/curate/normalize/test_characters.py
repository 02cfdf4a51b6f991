"""Characters that are not seen go; what scripts, emoji and code need stays."""

from __future__ import annotations

import pytest

from tutelage.curate.normalize.characters import to_nfc, without_control_characters


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u2028b\u2029c\x0bd\x0ce", "a\nb\nc\nd\ne"),
        ("a\x00b\x07c\x7fd", "abcd"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("it\x92s \x93quoted\x94 \x80 5", "it’s “quoted” € 5"),
        ("\ufeffstart and\u200b middle", "start and middle"),
        ("pro-\u00adgovern\u00adment", "pro-government"),
    ],
)
def test_what_is_not_seen_goes(before: str, after: str) -> None:
    assert without_control_characters(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\nnewline",
        "👩\u200d👩\u200d👧 and می\u200cخواهم",  # joiners of emoji and Persian
        "ประเทศ\u200bไทย \u200bครับ",  # Thai breaks its lines there
        "\u200eright\u200f marks",
        "no-break\u00a0space, ideographic\u3000space",
        "`\x1b[31m`",
        "```\na\x0cb\n```",
    ],
)
def test_what_is_needed_stays(text: str) -> None:
    assert without_control_characters(text) == text


def test_ends_of_lines_are_newlines_in_code_too() -> None:
    assert without_control_characters("```\r\nx\r\n```") == "```\nx\n```"


def test_accents_become_one_character_outside_of_code() -> None:
    assert to_nfc("Jose\u0301 and `Jose\u0301`") == "José and `Jose\u0301`"


@pytest.mark.parametrize("text", ["José", "½ ﬁ ² Ａ", "नमस्ते", "각"])
def test_form_nfc_is_no_form_nfkc(text: str) -> None:
    assert to_nfc(text) == text
