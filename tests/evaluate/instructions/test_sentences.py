"""How many sentences and words a text has."""

from __future__ import annotations

import pytest

from tutelage.evaluate.instructions.sentences import count_sentences
from tutelage.evaluate.instructions.words import count_words, joined_words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (0, '"\n" ...'),
        (1, "no mark at all"),
        (1, "A heading\n\nand what stands under it."),
        (2, "it works. small letters too."),
        (2, "One!! Two?! "),
        (2, "“Go!” she said."),
        (2, "He left (at last). She stayed."),
        (1, "Dr. Smith met Mrs. J. R. Jones at St. Paul's."),
        (1, "Bring milk, bread, etc. before noon."),
        (2, "Bring milk, bread, etc. He will pay."),
        (1, "At 5 p.m. in the U.S. we eat."),
        (1, "U.S. OFFICIALS ARE HERE."),
        (2, "We take plan B. The rest is easy."),
        (2, "So do I. You know."),
        (1, "It is version 3.5.1 of example.com."),
        (1, "Wait... what?"),
        (2, "Wait... We are late."),
        (2, "Nobody knows… Everybody cares."),
        (2, "1. Wash it.\n2. Dry it."),
        (1, "We were born in 1990. "),
        (2, "We were born in 1990. They were not."),
        (2, "हम आए। वे गए।"),
        (2, "ہم آئے۔ کیوں؟"),
        (2, "你好。再见！"),
    ],
)
def test_sentences(count: int, text: str) -> None:
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (20_000, "a. " * 20_000),
        (0, "." * 200_000),
        (1, "." * 200_000 + "a"),
        (0, "! " * 100_000),
        (0, "... " * 100_000),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_text_of_many_marks_is_read_once(count: int, text: str) -> None:
    """Each of them would take minutes if its marks were read again from every one."""
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (0, "— …"), (2, "don't"), (2, "snake_case x"), (2, "नमस्ते दोस्त"), (1, "e\u0301te\u0301"), (3, "3.50 €5")],
)
def test_words(count: int, text: str) -> None:
    assert count_words(text) == count


def test_words_with_joints() -> None:
    assert joined_words("The U.S. isn't USB-C, AT&T's.") == ["The", "U.S", "isn't", "USB-C", "AT&T's"]
