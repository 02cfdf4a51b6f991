"""The sets that near-duplicates are found by: the runs of five words (shingles) of a row's prompt and of its reply.

Character 5-grams would call unrelated documents alike (up to 0.36, where runs of words give 0.0004: marin-community
issue 6851), so words it is.

Shape legend: N = rows, G = shingles of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.word_hashes import Ragged, UInt64s, mixed, offsets_of, ragged_run_hashes
from tutelage.system.heap import release_pages

SHINGLE_WORDS = 5
PROMPT, REPLY = 0, 1
_MOST_BUCKET_BITS, _BITS_OF_SHARED_BUCKET = 22, 3
"""Buckets that shingles are counted in, eight to a bucket until there are as many buckets as take 32 MB."""
_SIDES = np.uint64(1)


def shingle_sets(prompts: Ragged, replies: Ragged) -> Ragged:
    """The shingles of each row: sorted, each once, the side of the row (`PROMPT`, `REPLY`) in the lowest bit.

    A side of fewer than five words is one shingle, itself; an empty one has none.

    Args:
        prompts: numbers of the words of each row's prompt; all empty where only replies are compared.
        replies: those of each row's reply.
    """
    sides = [_side(words, side) for side, words in ((PROMPT, prompts), (REPLY, replies))]
    counts = sides[0].lengths + sides[1].lengths
    offsets = offsets_of(counts)
    values = np.empty(int(offsets[-1]), dtype=np.uint64)
    first_places = np.arange(len(sides[0].values)) + np.repeat(offsets[:-1] - sides[0].offsets[:-1], sides[0].lengths)
    values[first_places] = sides[0].values
    second_starts = offsets[:-1] + sides[0].lengths - sides[1].offsets[:-1]
    values[np.arange(len(sides[1].values)) + np.repeat(second_starts, sides[1].lengths)] = sides[1].values
    return distinct(Ragged(values, offsets))


def distinct(rows: Ragged) -> Ragged:
    """The numbers of each row sorted, each once. `rows.values` is sorted in place."""
    for start, end in zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True):
        rows.values[start:end].sort()
    first = np.ones(len(rows.values), dtype=bool)
    first[1:] = rows.values[1:] != rows.values[:-1]
    first[rows.offsets[:-1][rows.lengths > 0]] = True
    kept_before = np.concatenate([[0], np.cumsum(first)])
    return Ragged(rows.values[first], kept_before[rows.offsets])


def side_counts(rows: Ragged) -> NDArray[np.int32]:
    """How many shingles each row has on each side, int32 [N, 2]."""
    replies_before = np.concatenate([[0], np.cumsum(rows.values & _SIDES)]).astype(np.int64)
    replies = np.diff(replies_before[rows.offsets])
    return np.stack([rows.lengths - replies, replies], axis=1).astype(np.int32)


def repeated_shingles(
    chunks: Sequence[Ragged], sources: NDArray[np.int32], *, share: float, rows: int
) -> dict[int, UInt64s]:
    """Source -> its template shingles, sorted: those that more than a share of its rows hold, and at least `rows` rows.

    Counted by some bits of each shingle in a first pass, and those that reach the bound by all bits in a second.

    Args:
        chunks: the shingles of all rows, in order.
        sources: int32 [N], which source each row is of.
        share: of the rows of a source.
        rows: the least number of rows.
    """
    templates = {}
    for source, size in enumerate(np.bincount(sources)):
        bound = max(rows, int(share * size) + 1)
        if size >= bound:
            parts = _of_source(chunks, sources, source)
            templates[source] = _met_by(parts, bound)
    return {source: shingles for source, shingles in templates.items() if len(shingles)}


def without(rows: Ragged, sources: NDArray[np.int32], templates: Mapping[int, UInt64s]) -> Ragged:
    """Rows without the template shingles of their sources; a side of nothing else becomes one shingle, of all it had.

    So rows that are the template and nothing more are alike only if they are the same.

    Args:
        rows: the shingles of each row.
        sources: int32 [N], which source each row is of.
        templates: those of a source, sorted.
    """
    remains = np.ones(len(rows.values), dtype=bool)
    for source, shingles in templates.items():
        of_source = np.repeat(sources == source, rows.lengths)
        remains[of_source] = ~_is_in(rows.values[of_source], shingles)
    before = np.concatenate([[0], np.cumsum(remains)])
    reduced = Ragged(rows.values[remains], before[rows.offsets])
    emptied = (side_counts(rows) > 0) & (side_counts(reduced) == 0)
    if not emptied.any():
        return reduced
    wholes = [_whole(rows[row], side) for row, side in zip(*np.nonzero(emptied), strict=True)]
    values = np.insert(reduced.values, reduced.offsets[np.nonzero(emptied)[0]], np.array(wholes, dtype=np.uint64))
    return distinct(Ragged(values, offsets_of(reduced.lengths + emptied.sum(axis=1))))


def _side(words: Ragged, side: int) -> Ragged:
    runs = ragged_run_hashes(words, SHINGLE_WORDS)
    short = np.flatnonzero((words.lengths > 0) & (words.lengths < SHINGLE_WORDS))
    wholes = _short_texts(words, short)
    values = np.insert(runs.values, runs.offsets[short], wholes)
    counts = runs.lengths
    counts[short] = 1
    return Ragged((values & ~_SIDES) | np.uint64(side), offsets_of(counts))


def _short_texts(words: Ragged, short: NDArray[np.int64]) -> UInt64s:
    """A number for each text of fewer than five words, which hangs on how many they are."""
    total = words.lengths[short].astype(np.uint64)
    for place in range(SHINGLE_WORDS - 1):
        has_word = words.lengths[short] > place
        total[has_word] = mixed(total[has_word]) + words.values[words.offsets[short][has_word] + place]
    return mixed(total)


def _of_source(chunks: Sequence[Ragged], sources: NDArray[np.int32], source: int) -> list[UInt64s]:
    parts, start = [], 0
    for chunk in chunks:
        of_source = sources[start : start + len(chunk)] == source
        start += len(chunk)
        if of_source.all():
            parts.append(chunk.values)
        elif of_source.any():
            parts.append(chunk.values[np.repeat(of_source, chunk.lengths)])
    return parts


def _met_by(parts: Sequence[UInt64s], bound: int) -> UInt64s:
    """The shingles that at least `bound` rows hold; a row holds each of its shingles once."""
    bits = min(_MOST_BUCKET_BITS, max(1, sum(map(len, parts)).bit_length() - _BITS_OF_SHARED_BUCKET))
    counts = np.zeros(1 << bits, dtype=np.int32)
    for part in parts:
        np.add.at(counts, _buckets(part, bits), np.int32(1))
        release_pages(part)
    often = counts >= bound
    if not often.any():
        return np.zeros(0, dtype=np.uint64)
    met = np.concatenate([_often_met(part, often, bits) for part in parts])
    shingles, times = np.unique(met, return_counts=True)
    return shingles[times >= bound]


def _often_met(part: UInt64s, often: NDArray[np.bool_], bits: int) -> UInt64s:
    met = part[often[_buckets(part, bits)]]
    release_pages(part)
    return met


def _buckets(shingles: UInt64s, bits: int) -> NDArray[np.int64]:
    return (shingles >> np.uint64(64 - bits)).view(np.int64)


def _is_in(shingles: UInt64s, table: UInt64s) -> NDArray[np.bool_]:
    """Whether each shingle is in a sorted table that is not empty."""
    places = np.minimum(np.searchsorted(table, shingles), len(table) - 1)
    return np.asarray(table[places] == shingles)


def _whole(shingles: UInt64s, side: int) -> int:
    of_side = shingles[(shingles & _SIDES) == side]
    return (int(mixed(of_side).sum()) & ~1) | int(side)
