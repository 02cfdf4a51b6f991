"""The words of a text, and how many of them two texts have in the same order: what ROUGE-L is made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0xFF66, 0xFF9F),  # kana and their marks, in four places
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),  # Han, in four places
)
"""First and last character of scripts written without spaces between words. Source: Unicode 16, chapters 16 and 18."""
_ASCII_WORD = re.compile(r"[a-z0-9]+")


def plain_words(text: str) -> list[str]:
    """Runs of letters and digits in small letters and form NFC; what is written without spaces by the character.

    Of ASCII text these are the words of rouge-score without its stemmer. Of other scripts that package keeps nothing.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    composed = unicodedata.normalize("NFC", text).lower()
    return split_words("".join(character if _is_of_word(character) else " " for character in composed))


def split_words(text: str) -> list[str]:
    """What stands between white space; what is written without spaces by the character."""
    return "".join(f" {character} " if _is_unspaced(character) else character for character in text).split()


def word_places(words: Sequence[str]) -> dict[str, int]:
    """For each word a number whose bit i is set where `words[i]` is that word."""
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    return places


def common_in_order(places: Mapping[str, int], length: int, other: Sequence[str]) -> int:
    """How many words the longest common subsequence of two texts has.

    Args:
        places: `word_places` of the first text.
        length: how many words the first text has.
        other: the words of the second text.

    Source: Hyyrö 2004 (bit-parallel LCS-length computation revisited), algorithm of section 3: one bit a word of the
    first text, 0 where the length rises.
    """
    everything = (1 << length) - 1
    bits = everything
    for word in other:
        matches = bits & places.get(word, 0)
        if matches:  # most words of another text are in none of its places
            bits = ((bits + matches) | (bits - matches)) & everything
    return length - bits.bit_count()


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words the longest common subsequence has; `common_in_order` for one text beside many."""
    return common_in_order(word_places(second), len(second), first)


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L of two texts, from 0 to 1: twice the words that they have in the same order, over all words of both.

    Source: Lin 2004 (ROUGE), section 3, with precision and recall weighed alike. 0 where neither has a word.
    """
    one, two = plain_words(first), plain_words(second)
    return 2 * longest_common_subsequence(one, two) / (len(one) + len(two)) if one or two else 0.0


def _is_of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")  # vowel signs and accents are marks


def _is_unspaced(character: str) -> bool:
    return character > "\u0dff" and any(first <= ord(character) <= last for first, last in UNSPACED)


def has_word(text: str, word: str) -> bool:
    """Whether a word, or several, stand in a text as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
