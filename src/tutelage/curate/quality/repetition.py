"""Text that says the same over and over, by the rules of Gopher.

Source: Rae et al. 2021 (arXiv:2112.11446), table A1: shares of repeated lines and paragraphs, of the characters in
them, of the most frequent n-gram for n = 2 to 4, and of all repeated n-grams for n = 5 to 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import RepetitionSettings
from tutelage.curate.prose import is_json, is_mostly_code
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition

MOST_LINES: Final = 0.30
MOST_LINE_CHARACTERS: Final = 0.20
MOST_TOP: Final = {2: 0.20, 3: 0.18, 4: 0.16}
MOST_REPEATED: Final = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Thresholds by the length of the n-gram."""
_LEAST_AGAIN: Final = min(*(most / (2 * size) for size, most in MOST_TOP.items()), *MOST_REPEATED.values())
"""Of the characters: where fewer are of words that were there before, no n-gram reaches its threshold."""
CIRCLE_TIMES, CIRCLE_LETTERS, MOST_PERIOD = 4, 40, 60
"""How often a piece of at most so many words ends a text that goes round in circles, in how many letters at least: rows
of a table have none. Our choice."""
FULL_WORDS: Final = 200
"""Below so many words the thresholds for n-grams rise as the text gets shorter: Gopher's are for pages, and in a sum of
60 words `pounds of` is soon a fifth of them. Our choice, measured on GSM8K (docs/curate.md)."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """Finds repetition in what is learned, code left out; texts of fewer words than Gopher takes are not judged."""

    settings: RepetitionSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a text that is long enough."""
        return chunk.learned.rows_of(chunk.learned.lengths > 2 * self.settings.least_words)

    def __call__(self, row: RowTexts) -> str | None:
        """Which share is over its threshold, and the words that are repeated."""
        for text in row.prose:
            if len(text) > 2 * self.settings.least_words:
                words = text.split()
                if len(words) >= self.settings.least_words:
                    factor = self.settings.factor
                    raised = factor * max(1.0, FULL_WORDS / len(words))
                    problem = repeated_lines(text, factor) or repeated_words(words, raised)
                    if problem is not None and _is_data(text, len(words)):
                        problem = None
                    problem = problem or circle(words)
                    if problem is not None and not is_json(text):
                        return problem
        return None


def _is_data(text: str, words: int) -> bool:
    """Whether a text is code or JSON, or has more than one key of JSON for 40 words: records repeat by their form."""
    return 40 * text.count('":') > words or is_json(text) or is_mostly_code(text)


def circle(words: Sequence[str]) -> str | None:
    """A text whose last words are one and the same piece, at least `CIRCLE_TIMES` times: a model that went round."""
    last = len(words) - 1
    for period in range(1, min(MOST_PERIOD, len(words) // CIRCLE_TIMES) + 1):
        if words[last] == words[last - period]:
            place = last - 1
            while place >= period and words[place] == words[place - period]:
                place -= 1
            times, piece = (last - place) // period + 1, " ".join(words[len(words) - period :])
            if times >= CIRCLE_TIMES and sum(map(str.isalpha, piece)) * times >= CIRCLE_LETTERS:
                return f"ends with {piece[:60]!r} {times} times"
    return None


def repeated_lines(text: str, factor: float = 1.0) -> str | None:
    """Lines, or paragraphs, that were there before: more than 30 % of them, or 20 % of the characters."""
    for name, separator in (("lines", "\n"), ("paragraphs", "\n\n")) if "\n" in text else ():
        pieces = [piece for line in text.split(separator) if (piece := line.strip())]
        distinct = set(pieces)
        if len(pieces) < 2 or len(distinct) == len(pieces):
            continue
        repeated = len(pieces) - len(distinct)
        characters = sum(map(len, pieces))
        repeated_characters = characters - sum(map(len, distinct))
        most = Counter(pieces).most_common(1)[0]
        if (
            repeated > factor * MOST_LINES * len(pieces)
            or repeated_characters > factor * MOST_LINE_CHARACTERS * characters
        ):
            return f"{repeated} of {len(pieces)} {name} were there before; {most[1]} times {most[0][:60]!r}"
    return None


def repeated_words(words: Sequence[str], factor: float = 1.0) -> str | None:
    """N-grams that fill more of the words' characters than Gopher allows.

    Args:
        words: as they stand between white space.
        factor: what the thresholds are multiplied by.
    """
    characters = len("".join(words))
    again = characters - len("".join(set(words)))
    # A word that fills most comes twice at least, and all but the first were there before.
    if again <= factor * characters * _LEAST_AGAIN:
        return None
    # No n-gram of n words fills more than n times what the word does that fills most; and all repeated ones together
    # fill no more than words that were there before: two tests without any n-gram.
    fullest = max((count * len(word) for word, count in Counter(words).items() if count > 1), default=0)
    for size, most in MOST_TOP.items():
        if size * fullest > factor * most * characters:
            top, count = Counter(_ngrams(words, size)).most_common(1)[0]
            share = count * sum(map(len, top)) / characters
            if count > 1 and share > factor * most:
                return f"{' '.join(top)!r} {count} times, {share:.0%} of the text"
    if again > factor * min(MOST_REPEATED.values()) * characters:
        for size, most in MOST_REPEATED.items():
            repeated = _repeated_characters(words, size)
            if not repeated:
                break  # a longer n-gram that comes twice holds shorter ones that do
            if repeated > factor * most * characters:
                example = _example(words, size)
                return f"{size}-grams that come again are {repeated / characters:.0%} of the text: {example!r}"
    return None


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(pairwise(words)) if size == 2 else list(zip(*(words[start:] for start in range(size)), strict=False))


def _repeated_characters(words: Sequence[str], size: int) -> int:
    """Characters of the n-grams that were there before, none counted twice."""
    ngrams = _ngrams(words, size)
    if len(set(ngrams)) == len(ngrams):
        return 0
    seen: set[tuple[str, ...]] = set()
    repeated = place = 0
    while place < len(ngrams):
        if ngrams[place] in seen:
            repeated += sum(map(len, ngrams[place]))
            place += size
        else:
            seen.add(ngrams[place])
            place += 1
    return repeated


def _example(words: Sequence[str], size: int) -> str:
    return " ".join(Counter(_ngrams(words, size)).most_common(1)[0][0])[:60]


REPETITION = RuleDefinition("repetition", "a text that says the same over and over (Gopher's rules)", Repetition)
