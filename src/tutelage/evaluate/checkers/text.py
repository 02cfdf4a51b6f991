"""Text beside the reference: exact match, SQuAD's normalized match and token F1, ROUGE-L."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from tutelage.evaluate.checkers.checker import Checker
from tutelage.types import Prompt

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),  # Han, in four places
)
"""Scripts written without spaces between words. Source: Unicode 16, Blocks."""


def exact_match(prompt: Prompt, reply: str) -> float:
    """1 where the reply is the reference, character by character, white space around both aside."""
    return float(reply.strip() == prompt.reference.strip())


def normalized_match(prompt: Prompt, reply: str) -> float:
    """1 where both are the same after `normalized_words`.

    Source: Rajpurkar et al. 2016 (SQuAD), section 6.1, exact match.
    """
    return float(normalized_words(reply) == normalized_words(prompt.reference))


def token_f1(prompt: Prompt, reply: str) -> float:
    """F1 of the words that both have, each as often as in the one that has it less often.

    Where one of them has no words, 1 if the other has none either.

    Source: Rajpurkar et al. 2016 (SQuAD), section 6.1, macro-averaged F1.
    """
    words, reference = normalized_words(reply), normalized_words(prompt.reference)
    if not words or not reference:
        return float(words == reference)
    return _f_measure(sum((Counter(words) & Counter(reference)).values()), len(words), len(reference))


def rouge_l(prompt: Prompt, reply: str) -> float:
    """F-measure of the longest common subsequence of words, precision and recall weighed alike; nothing is stemmed.

    Source: Lin 2004 (ROUGE), section 3.1, equations 2 to 4 with beta = 1, over the whole text.
    """
    words, reference = plain_words(reply), plain_words(prompt.reference)
    if not words or not reference:
        return float(words == reference)
    return _f_measure(longest_common_subsequence(words, reference), len(words), len(reference))


def normalized_words(text: str) -> list[str]:
    """Words of SQuAD's normalization: small letters, without punctuation and without the English a, an and the.

    In ASCII text they are SQuAD's own. Elsewhere all that Unicode calls punctuation goes, too, and what is written
    without spaces (`UNSPACED`) is counted by the character. No articles but the English ones are known.
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    return _split(ARTICLES.sub(" ", kept))


def plain_words(text: str) -> list[str]:
    """Runs of letters and digits, in small letters; what is written without spaces by the character."""
    return _split("".join(character if _is_of_word(character) else " " for character in text.lower()))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words the longest common subsequence has.

    Source: Hyyrö 2004 (bit-parallel LCS-length computation revisited), algorithm of section 3: one bit a word of
    `second`, 0 where the length rises.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(second)) - 1
    bits = everything
    for word in first:
        matches = bits & places.get(word, 0)
        bits = ((bits + matches) | (bits - matches)) & everything
    return len(second) - bits.bit_count()


def _f_measure(common: int, found: int, wanted: int) -> float:
    """2 P R / (P + R) with P = common / found and R = common / wanted."""
    return 2 * common / (found + wanted)


def _split(text: str) -> list[str]:
    return "".join(f" {character} " if _is_unspaced(character) else character for character in text).split()


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _is_of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")  # vowel signs and accents are marks


def _is_unspaced(character: str) -> bool:
    return character > "\u0dff" and any(first <= ord(character) <= last for first, last in UNSPACED)


TEXT_CHECKERS = (
    Checker("exact_match", exact_match),
    Checker("normalized_match", normalized_match),
    Checker("token_f1", token_f1, graded=True),
    Checker("rouge_l", rouge_l, graded=True),
)
