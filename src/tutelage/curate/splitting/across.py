"""The highest similarity between rows of different splits: exact, over all pairs that share anything.

The shingles of the smaller splits are indexed, and those of all rows run past them. So nothing hangs on signatures or
luck: a pair that shares no shingle has similarity 0, and each that does is counted.

Shape legend: N = rows, H = rows that are held out, K = splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.word_hashes import Ragged, UInt64s

ROWS_AT_ONCE = 2_000
_NO_PAIRS = np.zeros((0, 2), dtype=np.int64)
HITS_AT_ONCE = 20_000_000
"""Shingles in common that are counted together: some 500 MB at most."""


@dataclass(slots=True)
class Across:
    """What was found.

    Attributes:
        highest: by pair of splits (the lower number first): similarity and the two rows, the first split's first.
        alike: int64 [P, 2], pairs whose similarity reaches the threshold.
    """

    highest: dict[tuple[int, int], tuple[float, int, int]] = field(default_factory=dict)
    alike: NDArray[np.int64] = field(default_factory=_NO_PAIRS.copy)


def similarity_across(
    chunks: Sequence[Ragged], rows: NDArray[np.int64], splits: NDArray[np.int64], threshold: float
) -> Across:
    """Compare each row with all of other splits.

    Args:
        chunks: the shingles of the compared rows, in order.
        rows: int64 [N], their names in the result.
        splits: int64 [N].
        threshold: Jaccard similarity of pairs that are listed.
    """
    found, alike = Across(), [_NO_PAIRS]
    largest = int(np.bincount(splits).argmax()) if len(splits) else 0
    for all_first, all_second, all_similarities in _similarities(chunks, splits != largest):
        apart = splits[all_first] != splits[all_second]
        first, second, similarities = all_first[apart], all_second[apart], all_similarities[apart]
        _take_highest(found, rows, splits, first, second, similarities)
        reached = similarities >= threshold
        alike.append(np.stack([rows[first[reached]], rows[second[reached]]], axis=1))
    found.alike = np.unique(np.sort(np.concatenate(alike), axis=1), axis=0)
    return found


def alike_pairs(chunks: Sequence[Ragged], rows: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """All pairs whose similarity reaches a threshold, int64 [P, 2]; the shingles of all rows are indexed for it.

    Args:
        chunks: the shingles of the compared rows, in order.
        rows: int64 [N], their names in the result.
        threshold: Jaccard similarity.
    """
    pairs = [_NO_PAIRS]
    for first, second, similarities in _similarities(chunks, np.ones(len(rows), dtype=np.bool_)):
        reached = (similarities >= threshold) & (first < second)
        pairs.append(np.stack([rows[first[reached]], rows[second[reached]]], axis=1))
    return np.concatenate(pairs)


def _similarities(
    chunks: Sequence[Ragged], indexed: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Each pair of a row and an indexed one that share a shingle, with its similarity, stretch by stretch.

    Args:
        chunks: the shingles of N rows, in order.
        indexed: bool [N].
    """
    lengths = np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.lengths for chunk in chunks)])
    index = _Index.of(chunks, indexed)
    for start, part in _slices(chunks, index):
        first, second, shared = index.shared(part)
        first = first + start
        yield first, second, shared / (lengths[first] + lengths[second] - shared)


@dataclass(frozen=True, slots=True)
class _Index:
    """Shingles of held-out rows, sorted, and which row each is of."""

    values: UInt64s
    owners: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, chunks: Sequence[Ragged], held_out: NDArray[np.bool_]) -> _Index:
        values, owners, start = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)], 0
        for chunk in chunks:
            of_chunk = held_out[start : start + len(chunk)]
            values.append(chunk.values[np.repeat(of_chunk, chunk.lengths)])
            owners.append(np.repeat(start + np.flatnonzero(of_chunk), chunk.lengths[of_chunk]))
            start += len(chunk)
        joined = np.concatenate(values)
        order = np.argsort(joined, kind="stable")
        return cls(joined[order], np.concatenate(owners)[order], len(held_out))

    def hits(self, values: UInt64s) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each shingle begins in the index, and how many rows hold it."""
        begin = np.searchsorted(self.values, values, side="left")
        return begin, np.searchsorted(self.values, values, side="right") - begin

    def shared(self, part: Ragged) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a row of the part and a held-out one, and how many shingles they share."""
        begin, counts = self.hits(part.values)
        total = int(counts.sum())
        places = np.repeat(begin - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(total)
        of_part = np.repeat(np.repeat(np.arange(len(part)), part.lengths), counts)
        codes, shared = np.unique(of_part * self.rows + self.owners[places], return_counts=True)
        first, second = np.divmod(codes, max(1, self.rows))
        return first, second, shared


def _slices(chunks: Sequence[Ragged], index: _Index) -> Iterator[tuple[int, Ragged]]:
    """Stretches of rows that are compared together, each with the number of its first row."""
    start = 0
    for chunk in chunks:
        ends = np.concatenate([[0], np.cumsum(index.hits(chunk.values)[1])])[chunk.offsets]
        begin = 0
        while begin < len(chunk):
            by_hits = int(np.searchsorted(ends, ends[begin] + HITS_AT_ONCE, side="right")) - 1
            stop = min(len(chunk), begin + ROWS_AT_ONCE, max(begin + 1, by_hits))
            offsets = chunk.offsets[begin : stop + 1]
            yield start + begin, Ragged(chunk.values[offsets[0] : offsets[-1]], offsets - offsets[0])
            begin = stop
        start += len(chunk)


def _take_highest(
    found: Across,
    rows: NDArray[np.int64],
    splits: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    similarities: NDArray[np.float64],
) -> None:
    low, high = np.minimum(splits[first], splits[second]), np.maximum(splits[first], splits[second])
    for pair in sorted(set(zip(low.tolist(), high.tolist(), strict=True))):
        of_pair = np.flatnonzero((low == pair[0]) & (high == pair[1]))
        best = of_pair[similarities[of_pair].argmax()]
        similarity = float(similarities[best])
        if similarity > found.highest.get(pair, (0.0, 0, 0))[0]:
            ends = sorted((int(first[best]), int(second[best])), key=lambda row: int(splits[row]))
            found.highest[pair] = similarity, int(rows[ends[0]]), int(rows[ends[1]])
