"""All runs of eight words of the evaluation items, and where a text runs along one of them.

A longer run of shared words is several runs of eight that follow one another, so one index serves every length. A run
of eight that many items hold (a template of the set) is no sign of any of them, and is not in the index.

Shape legend: T = texts of items, G = distinct runs of eight words in the index, P = places of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.evaluation_items import EvaluationText
from tutelage.curate.texts import words
from tutelage.curate.word_hashes import UInt64s, hashed_words, ragged_run_hashes

RUN_WORDS = 8
"""Source: ConTAM (Singh et al. 2024): longer runs miss real leaks; also Dubey et al. 2024, section 5.1.4, and Tulu 3
(Lambert et al. 2024), section 3.2: runs of eight."""
LEAST_WHOLE_WORDS = 3
"""A text of fewer words, such as 'Continue.', is no sign of an item."""
_FILTER_BITS = 22

Hit = tuple[int, int]
"""The first word of a run of eight in a text, and the number of that run in the index."""


@dataclass(frozen=True, slots=True)
class SharedRun:
    """Words that stand in a text of an item and in the text that is looked at.

    Attributes:
        text: which text of the index.
        item_start: its first word there.
        start: its first word here.
        length: in words.
    """

    text: int
    item_start: int
    start: int
    length: int


class NgramIndex:
    """An index of the texts of evaluation items.

    Attributes:
        texts: of the items.
        telling: int64 [T]: words of each text that stand in a run of eight which is no template.

    Args:
        texts: of the items.
        template_items: a run of eight that more items than this hold is a template.
    """

    def __init__(self, texts: Sequence[EvaluationText], *, template_items: int) -> None:
        self.texts = tuple(texts)
        self._words = tuple(tuple(words(text.text)) for text in texts)
        runs = ragged_run_hashes(hashed_words(self._words), RUN_WORDS)
        owners = np.repeat(np.arange(len(texts), dtype=np.int64), runs.lengths)
        places = np.arange(len(runs.values)) - np.repeat(runs.offsets[:-1], runs.lengths)
        telling = ~_in_many(runs.values, self._items()[owners], template_items)
        self.telling = self._telling_words(owners[telling], places[telling])
        order = np.argsort(runs.values[telling], kind="stable")
        self._owners, self._places = owners[telling][order], places[telling][order]
        self._runs, self._starts = np.unique(runs.values[telling][order], return_index=True)
        self._stops = np.append(self._starts[1:], len(order))
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._filter[_slots(self._runs)] = True
        self._wholes = self._whole_texts()

    def hits(self, texts: Sequence[Sequence[str]]) -> list[list[Hit]]:
        """Where the runs of eight words of each text are those of an item, in their order; not verified yet."""
        of_texts: list[list[Hit]] = [[] for _ in texts]
        if not len(self._runs):
            return of_texts
        runs = ragged_run_hashes(hashed_words(texts), RUN_WORDS)
        maybe = np.flatnonzero(self._filter[_slots(runs.values)])
        rows = np.minimum(np.searchsorted(self._runs, runs.values[maybe]), len(self._runs) - 1)
        same = self._runs[rows] == runs.values[maybe]
        places, rows = maybe[same], rows[same]
        owners = np.searchsorted(runs.offsets, places, side="right") - 1
        starts = places - runs.offsets[owners]
        for owner, start, row in zip(owners.tolist(), starts.tolist(), rows.tolist(), strict=True):
            of_texts[owner].append((start, row))
        return of_texts

    def shared_runs(self, text_words: Sequence[str], hits: Sequence[Hit]) -> list[SharedRun]:
        """Every run of at least eight words that a text shares with an item, verified word by word.

        Args:
            text_words: of the text.
            hits: in their order, those of the text that count.
        """
        open_runs: dict[tuple[int, int], SharedRun] = {}
        finished = []
        for start, row in hits:
            run_words = tuple(text_words[start : start + RUN_WORDS])
            for place in range(self._starts[row], self._stops[row]):
                text, item_start = int(self._owners[place]), int(self._places[place])
                if self._words[text][item_start : item_start + RUN_WORDS] != run_words:
                    continue
                key = text, item_start - start
                run = open_runs.get(key)
                if run is not None and run.start + run.length - RUN_WORDS + 1 == start:
                    open_runs[key] = SharedRun(text, run.item_start, run.start, run.length + 1)
                    continue
                if run is not None:
                    finished.append(run)
                open_runs[key] = SharedRun(text, item_start, start, RUN_WORDS)
        return [*finished, *open_runs.values()]

    def whole(self, text_words: Sequence[str]) -> Sequence[int]:
        """The texts that these words are, among those that are known by their whole alone."""
        return self._wholes.get(tuple(text_words), ())

    def words(self, text: int) -> Sequence[str]:
        """The words of a text."""
        return self._words[text]

    def __len__(self) -> int:
        """Distinct runs of eight words."""
        return len(self._runs)

    def _items(self) -> NDArray[np.int64]:
        """Which item each text is of: int64 [T]."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(text.address, len(numbers)) for text in self.texts], dtype=np.int64)

    def _telling_words(self, owners: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in self._words])]).astype(np.int64)
        covered = np.zeros(int(offsets[-1]) + 1, dtype=np.int64)
        firsts = offsets[owners] + places
        np.add.at(covered, firsts, 1)
        np.add.at(covered, firsts + RUN_WORDS, -1)
        before = np.concatenate([[0], np.cumsum(np.cumsum(covered)[:-1] > 0)])
        return np.diff(before[offsets]).astype(np.int64)

    def _whole_texts(self) -> dict[tuple[str, ...], list[int]]:
        """Questions that no run of eight tells apart: short ones, and those that are a template from end to end."""
        wholes: dict[tuple[str, ...], list[int]] = {}
        for text, text_words in enumerate(self._words):
            if self.texts[text].part == "prompt" and not self.telling[text] and len(text_words) >= LEAST_WHOLE_WORDS:
                wholes.setdefault(text_words, []).append(text)
        return wholes


def _in_many(runs: UInt64s, items: NDArray[np.int64], bound: int) -> NDArray[np.bool_]:
    """Whether more than `bound` items hold each run."""
    order = np.lexsort((items, runs))
    sorted_runs, sorted_items = runs[order], items[order]
    new_run = np.ones(len(runs), dtype=bool)
    new_run[1:] = sorted_runs[1:] != sorted_runs[:-1]
    new_item = new_run.copy()
    new_item[1:] |= sorted_items[1:] != sorted_items[:-1]
    groups = np.cumsum(new_run) - 1
    counts = np.bincount(groups, weights=new_item) if len(runs) else np.zeros(0)
    many = np.zeros(len(runs), dtype=bool)
    many[order] = counts[groups] > bound
    return many


def _slots(runs: UInt64s) -> NDArray[np.int64]:
    return (runs >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
