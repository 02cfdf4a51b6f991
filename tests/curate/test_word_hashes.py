"""Words as numbers, found in all texts at once: as many as the texts have words, and equal where the words are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.curate.texts import words
from tutelage.curate.word_hashes import numbered_words, spaced_word_counts

PIECES = (
    "word", "Word", "WORD", "a", "abcdefgh", "abcdefghi", "abcdefghijklmnopq", "x_1", " ", "  ", "\n", "-", "'", ".",
    "é", "É", "e\u0301", "\u0301", "=\u0338", "ß", "SS", "ﬁ", "İ", "\u212a", "Straße", "привет", "हिन्दी", "สวัสดี",
    "日本", "한", "\u1112\u1161", "“", "’", "\x00", "\x1c", "\u00a0", "\ufe0f", "🙂", "\udc80",
    "q" * 1024, "q" * 1025, "q" * 3000, "q" * 3000 + "r",
)  # fmt: skip
NUMBERS = ["0xa884f64048d19acd", "0x48ea5e9181b36707", "0x68c086371acc6c0d", "0x72332ba3a250a908"]
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=30))


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=300, deadline=None)
def test_numbers_stand_for_the_words_of_each_text(texts: list[str]) -> None:
    numbered = numbered_words(texts)
    expected = [words(text) for text in texts]
    assert numbered.lengths.tolist() == list(map(len, expected))
    number_of: dict[str, int] = {}
    for place, of_text in enumerate(expected):
        for word, number in zip(of_text, numbered[place].tolist(), strict=True):
            assert number_of.setdefault(word, number) == number
    assert len(set(number_of.values())) == len(number_of)


def test_a_text_has_the_same_numbers_wherever_it_stands() -> None:
    texts = [f"text {number} of many words, {'filler ' * 40}" for number in range(600)]  # more than are taken at once
    together = numbered_words(texts)
    for place in (0, 299, 450, 451, 452, 599):
        assert together[place].tolist() == numbered_words([texts[place]]).values.tolist()


def test_words_have_the_numbers_they_always_had() -> None:
    """Numbers are kept on disk between runs: they may not hang on the process, the machine or the version."""
    numbers = numbered_words(["The quick Straße", "internationalization"]).values.tolist()
    assert list(map(hex, numbers)) == NUMBERS


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=300, deadline=None)
def test_words_between_white_space_are_counted_as_python_splits_them(texts: list[str]) -> None:
    assert spaced_word_counts(texts).tolist() == [len(text.split()) for text in texts]
