"""Text beside the reference: exact match, SQuAD's normalized match and token F1, ROUGE-L."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

from tutelage.evaluate.checkers.checker import Checker
from tutelage.types import Prompt
from tutelage.words import longest_common_subsequence, plain_words, split_words

ARTICLES = re.compile(r"\b(?:a|an|the)\b")


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
    without spaces is counted by the character. No articles but the English ones are known.
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    return split_words(ARTICLES.sub(" ", kept))


def _f_measure(common: int, found: int, wanted: int) -> float:
    """2 P R / (P + R) with P = common / found and R = common / wanted."""
    return 2 * common / (found + wanted)


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


TEXT_CHECKERS = (
    Checker("exact_match", exact_match),
    Checker("normalized_match", normalized_match),
    Checker("token_f1", token_f1, graded=True),
    Checker("rouge_l", rouge_l, graded=True),
)
