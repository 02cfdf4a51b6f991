"""Whether an instruction is new: its ROUGE-L with every earlier one is under a bound, decided without comparing all.

Both Self-Instruct and Alpaca compare each new instruction with every earlier one. Here an index hands on only those
that could reach the bound, and none that does is missed:

1. Two texts of n and m words reach the F-measure t where at least `need` = ceil(t (n + m) / 2) words are common in the
   same order. So their lengths are bounded by each other, and at least so many words are common in any order.
2. The words of each text are put in one order, rarest first, a word's second time being another than its first. Of the
   words that two texts share, the second in this order then has at most n - need + 1 words before it in the one and
   m - need + 1 in the other, as need - 2 shared ones follow. So it is enough to look up each pair of words from the
   beginnings of both orders; two rare words are together in few texts, however many there are.
3. What was found so is compared in full.

Source: the rule, Wang et al. 2022 (Self-Instruct), section 2.2; the beginnings, Chaudhuri et al. 2006 (prefix
filtering), with two words for one as in Wang et al. 2012 (adaptive prefix filtering); ROUGE-L, Lin 2004.

Shape legend: P = pairs of one text, K = entries of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tutelage.words import common_in_order, word_places

Int64s = NDArray[np.int64]

LOWEST_BOUND, HIGHEST_BOUND = 0.5, 1.0
LONG_WORDS = 200
"""Texts of more words are compared one by one where their lengths allow it: their pairs would be too many."""
_BUFFERED_PAIRS = 8192
_REORDER_GROWTH = 4
_FIRST_REORDER = 256


@dataclass(frozen=True, slots=True)
class Nearest:
    """An earlier text that is too much alike: its number, from 0 in the order of adding, and its ROUGE-L."""

    number: int
    score: float


class NoveltyIndex:
    """The texts so far, and which of them is too much like another one.

    Args:
        bound: a text is new while its F-measure with every earlier one is below it, from 0.5 to 1. Compared as a
            fraction of whole numbers, so that 0.7 is 7 / 10 and not the float beside it.

    Raises:
        ValueError: `bound` is outside of that.
    """

    def __init__(self, bound: float = 0.7) -> None:
        if not LOWEST_BOUND <= bound <= HIGHEST_BOUND:
            raise ValueError(f"bound is {bound}, not from {LOWEST_BOUND} to {HIGHEST_BOUND}")
        self._bound = Fraction(str(bound))
        self._texts: list[tuple[str, ...]] = []
        self._elements: dict[tuple[str, int], int] = {}
        self._ranks: list[int] = []
        self._pairs = _PairIndex()
        self._ordered_at = 0
        self._wordless: int | None = None
        self._short: list[int] = []
        self._long: list[int] = []
        self._lengths: list[int] = []
        self._compared = 0

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def compared(self) -> int:
        """How many pairs of texts were compared in full."""
        return self._compared

    def nearest(self, words: Sequence[str]) -> Nearest | None:
        """The earlier text with the highest score at or above the bound, the earliest of equals; None for a new one.

        A text without words is like another one without words, and like nothing else.
        """
        length = len(words)
        if not length:
            return None if self._wordless is None else Nearest(self._wordless, 1.0)
        places, best = word_places(words), None
        for number in self._candidates(words):
            other = self._texts[number]
            self._compared += 1
            common = common_in_order(places, length, other)
            if common >= self._need(length, len(other)):
                score = 2 * common / (length + len(other))
                if best is None or score > best.score:
                    best = Nearest(number, score)
        return best

    def add(self, words: Sequence[str]) -> int:
        """Keep a text, new or not; its number."""
        number, length = len(self._texts), len(words)
        self._texts.append(tuple(words))
        self._lengths.append(length)
        if not length:
            self._wordless = number if self._wordless is None else self._wordless
        elif length > LONG_WORDS:
            self._long.append(number)
        else:
            if length <= self._short_words:
                self._short.append(number)
            self._pairs.add(*self._pairs_of(words), number, length)
        if number + 1 >= max(_FIRST_REORDER, _REORDER_GROWTH * self._ordered_at):
            self._reorder()
        return number

    def _candidates(self, words: Sequence[str]) -> list[int]:
        """Numbers of all texts that could reach the bound, rising."""
        length = len(words)
        least, most = self._length_range(length)
        if length > LONG_WORDS:
            return [number for number, other in enumerate(self._lengths) if least <= other <= most]
        keys, places = self._pairs_of(words)
        numbers, lengths, their_places, ours = self._pairs.find(keys, places)
        need = -(-self._bound.numerator * (length + lengths) // (2 * self._bound.denominator))
        fits = (least <= lengths) & (lengths <= most) & (need >= 2)
        fits &= (ours <= length - need + 1) & (their_places <= lengths - need + 1)
        found = set(numbers[fits].tolist())
        found.update(number for number in self._long if self._lengths[number] <= most)
        if length <= self._short_words:
            found.update(self._short)
        return sorted(found)

    def _need(self, length: int, other: int) -> int:
        """How many words in the same order two texts of these lengths must have in common."""
        return -(-self._bound.numerator * (length + other) // (2 * self._bound.denominator))

    def _length_range(self, length: int) -> tuple[int, int]:
        """The shortest and the longest text that can reach the bound with one of this length."""
        numerator, rest = self._bound.numerator, 2 * self._bound.denominator - self._bound.numerator
        return -(-numerator * length // rest), rest * length // numerator

    @property
    def _short_words(self) -> int:
        """Texts up to this length may reach the bound with one shared word, which no pair finds."""
        return 2 * self._bound.denominator // self._bound.numerator - 1

    def _pairs_of(self, words: Sequence[str]) -> tuple[Int64s, Int64s]:
        """A number for each pair of words of the beginning of a text's order, and the place of its second word.

        Both int64 [P].
        """
        length = len(words)
        shared = self._need(length, self._length_range(length)[0])
        ordered = sorted(self._elements_of(words), key=self._ranks.__getitem__)[: max(0, length - shared + 2)]
        first, second = _pair_places(len(ordered))
        elements = np.array(ordered, dtype=np.int64)
        return (elements[first] << 32) | elements[second], second

    def _elements_of(self, words: Sequence[str]) -> list[int]:
        """A number for each word and how often it was there before; new ones are the rarest."""
        seen: Counter[str] = Counter()
        elements = []
        for word in words:
            element = self._elements.setdefault((word, seen[word]), len(self._ranks))
            if element == len(self._ranks):
                self._ranks.append(element)
            seen[word] += 1
            elements.append(element)
        return elements

    def _reorder(self) -> None:
        """Order words by how many texts have them now, and look all pairs up anew: the order must be one for all."""
        self._ordered_at = len(self._texts)
        counts = Counter(element for words in self._texts for element in self._elements_of(words))
        self._ranks = [(counts[element] << 32) | element for element in range(len(self._ranks))]
        self._pairs = _PairIndex()
        for number, words in enumerate(self._texts):
            if 0 < len(words) <= LONG_WORDS:
                self._pairs.add(*self._pairs_of(words), number, len(words))


class _PairIndex:
    """Which texts have a pair of words: sorted runs that are merged as they grow, so that adding costs little.

    An entry is the number of a text, its length, and the place of the pair's second word, in one number.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Int64s, Int64s]] = []
        self._recent: dict[int, list[int]] = {}
        self._recent_pairs = 0

    def add(self, keys: Int64s, places: Int64s, number: int, length: int) -> None:
        for key, place in zip(keys.tolist(), places.tolist(), strict=True):
            self._recent.setdefault(key, []).append(number << 16 | length << 8 | place)
        self._recent_pairs += len(keys)
        if self._recent_pairs >= _BUFFERED_PAIRS:
            self._flush()

    def find(self, keys: Int64s, places: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """For each entry under one of the keys: number, length, place there, and place of the key here. Each [K]."""
        entries, ours = [], []
        for run_keys, run_entries in self._runs:
            left = run_keys.searchsorted(keys)
            counts = run_keys.searchsorted(keys, side="right") - left
            total = int(counts.sum())
            if total:
                starts = left - counts.cumsum() + counts
                entries.append(run_entries[np.repeat(starts, counts) + np.arange(total)])
                ours.append(np.repeat(places, counts))
        held = [
            (self._recent[key], place)
            for key, place in zip(keys.tolist(), places.tolist(), strict=True)
            if key in self._recent
        ]
        entries += [np.array(recent, dtype=np.int64) for recent, _place in held]
        ours += [np.full(len(recent), place) for recent, place in held]
        if not entries:
            return (_NONE,) * 4
        found = np.concatenate(entries)
        return found >> 16, (found >> 8) & 0xFF, found & 0xFF, np.concatenate(ours)

    def _flush(self) -> None:
        counts = [len(entries) for entries in self._recent.values()]
        keys = np.repeat(np.fromiter(self._recent, np.int64, len(counts)), counts)
        entries = np.fromiter((entry for held in self._recent.values() for entry in held), np.int64, len(keys))
        self._runs.append(_sorted_run(keys, entries))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted_run(*(np.concatenate(both) for both in zip(before, last, strict=True))))
        self._recent, self._recent_pairs = {}, 0


_NONE = np.zeros(0, dtype=np.int64)


def _sorted_run(keys: Int64s, entries: Int64s) -> tuple[Int64s, Int64s]:
    order = np.argsort(keys, kind="stable")
    return keys[order], entries[order]


@lru_cache(maxsize=LONG_WORDS + 2)
def _pair_places(length: int) -> tuple[Int64s, Int64s]:
    """Places of the first and the second word of every pair, int64 [P], the first before the second."""
    second, first = np.tril_indices(length, -1)
    return first.astype(np.int64), second.astype(np.int64)
