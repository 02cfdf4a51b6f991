"""Languages are told from sentences of our own: each that IFEval asks for, and those easily taken for one of them."""

from __future__ import annotations

import pytest
from benchmarks.ifeval.replies import TEXTS

from tutelage.evaluate.instructions.languages import known_languages, language_of, likeliest_languages

ASKED = {
    *("ar", "bg", "bn", "de", "fa", "fi", "gu", "hi", "it", "kn", "ko", "mr", "ne", "pa", "pt", "ru", "sw", "ta", "te"),
    *("th", "ur", "vi", "en"),
}


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_a_language_is_told_from_one_sentence(code: str) -> None:
    assert {text: language_of(text) for text in TEXTS[code]} == dict.fromkeys(TEXTS[code], code)
    assert language_of(" ".join(TEXTS[code])) == code


def test_every_language_of_the_rows_is_known_and_tried() -> None:
    assert ASKED <= set(TEXTS) <= set(known_languages())


@pytest.mark.parametrize("code", ["en", "de", "it", "ru", "vi", "sw"])
def test_capitals_change_nothing(code: str) -> None:
    assert language_of(" ".join(TEXTS[code]).upper()) == code


def test_of_two_languages_the_one_with_more_letters_counts() -> None:
    hindi, english = TEXTS["hi"], TEXTS["en"]

    assert language_of(f"{english[0]} {' '.join(hindi)}") == "hi"
    assert language_of(f"{' '.join(english)} {hindi[0]}") == "en"


def test_digits_and_signs_are_in_no_language() -> None:
    for text in ("", "42", "🎉 12:30", "۱۲۳", "१२३", "…", "$"):
        assert language_of(text) is None
        assert likeliest_languages(text) == ()


def test_where_nothing_decides_all_languages_of_the_script_are_left() -> None:
    assert language_of("Xyzzy") is None
    assert {"en", "de", "vi"} <= set(likeliest_languages("Xyzzy"))
    assert "ru" not in likeliest_languages("Xyzzy")


def test_japanese_is_not_taken_for_chinese() -> None:
    assert language_of("東京都港区に住んでいます") == "ja"
    assert language_of("我住在北京") == "zh"
