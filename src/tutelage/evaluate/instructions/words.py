"""Words of a text, as its instructions count them."""

from __future__ import annotations

import re
import unicodedata

_MARKS = frozenset({"Mn", "Mc", "Me", "Cf"})
_WORD_WITH_JOINTS = re.compile(r"\w+(?:[-'’./&]\w+)*")


def count_words(text: str) -> int:
    """How many words `text` has: runs of letters, digits and underscores, so that "don't" is two.

    Marks that a script writes above, below or behind a letter belong to the letter's word.
    """
    return len(re.findall(r"\w+", "".join(char for char in text if unicodedata.category(char) not in _MARKS)))


def joined_words(text: str) -> list[str]:
    """The words of `text`, where hyphens, points and apostrophes inside a word do not divide it."""
    return _WORD_WITH_JOINTS.findall(text)


def is_whole_word_in(word: str, text: str) -> bool:
    """Whether `word` stands in `text` in any case, and no letter, digit or underscore beside it."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
