"""Rows that are near-duplicates of a row that is kept: candidates by MinHash, each verified by its exact similarity.

Shape legend: N = rows, P = pairs.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.minhash import PERMUTATIONS, Pairs, candidate_pairs, signatures
from tutelage.curate.shingles import side_counts
from tutelage.curate.star_clusters import KEPT, Stars, star_clusters
from tutelage.curate.word_hashes import Ragged, UInt64s
from tutelage.system.heap import release_pages

MOST_ROUNDS = 8
"""Rounds of comparing the rows that are kept so far. A second one is needed only where many rows agree on a band."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two rows have to be.

    Attributes:
        whole: the least Jaccard similarity of all they say.
        side: the least of their prompts alone, and of their replies alone. So a long prompt that rows share does not
            make duplicates of rows whose replies differ.
    """

    whole: float
    side: float


class RowSets:
    """The shingles of all rows, which lie in chunks.

    Args:
        chunks: in the order of the rows.
    """

    def __init__(self, chunks: Sequence[Ragged]) -> None:
        self.chunks = tuple(chunks)
        self._starts = [0, *accumulate(map(len, chunks))]
        self.counts = np.concatenate([np.zeros((0, 2), dtype=np.int32), *map(_counts_of, chunks)])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> UInt64s:
        chunk = bisect_right(self._starts, row) - 1
        return self.chunks[chunk][row - self._starts[chunk]]

    def similarity(self, first: int, second: int) -> tuple[float, float]:
        """The exact Jaccard similarity of two rows' sets, and that of their less alike side, prompt or reply.

        Two sides without words are the same.
        """
        both = np.concatenate((self[first], self[second]))
        both.sort()
        shared = both[1:][both[1:] == both[:-1]]
        replies = int(np.count_nonzero(shared & np.uint64(1)))
        prompts = len(shared) - replies
        prompt_total, reply_total = (self.counts[first] + self.counts[second]).tolist()
        return (
            _share(len(shared), prompt_total + reply_total),
            min(_share(prompts, prompt_total), _share(replies, reply_total)),
        )

    def reachable(self, pairs: Pairs, likeness: Likeness) -> NDArray[np.bool_]:
        """Whether the sizes of two rows' sets let them be near-duplicates, bool [P]."""
        first, second = self.counts[pairs[:, 0]], self.counts[pairs[:, 1]]
        sides = (np.minimum(first, second) >= likeness.side * np.maximum(first, second)).all(axis=1)
        first_all, second_all = first.sum(axis=1), second.sum(axis=1)
        return np.asarray(
            sides & (np.minimum(first_all, second_all) >= likeness.whole * np.maximum(first_all, second_all))
        )


@dataclass(frozen=True, slots=True)
class NearPairs:
    """What was compared, and what came of it.

    Attributes:
        stars: the clusters, by row.
        candidates: pairs that agree on a band and in size, and were verified.
        verified: int64 [P, 2]: those of them that are near-duplicates, each pair once.
    """

    stars: Stars
    candidates: int
    verified: Pairs


def near_pairs(sets: RowSets, preferred: NDArray[np.int64], *, likeness: Likeness, seed: int) -> NearPairs:
    """Find the near-duplicates of all rows. Signatures lie in a file of their own while it works.

    Args:
        sets: the shingles of each row; a row without any is like no other.
        preferred: int64 [N], all rows, that which is to be kept first.
        likeness: of near-duplicates.
        seed: of the permutations.
    """
    if not len(sets):
        return NearPairs(star_clusters(np.zeros((0, 2), np.int64), np.zeros(0), 0), 0, np.zeros((0, 2), np.int64))
    with tempfile.TemporaryFile() as file:
        signed = np.memmap(file, dtype=np.uint32, mode="w+", shape=(len(sets), PERMUTATIONS))
        signatures(sets.chunks, signed, seed=seed)
        release_pages(signed)
        return _verified(sets, preferred, signed, likeness)


def _verified(sets: RowSets, preferred: NDArray[np.int64], signed: NDArray[np.uint32], likeness: Likeness) -> NearPairs:
    rank = np.empty(len(sets), dtype=np.int64)
    rank[preferred] = np.arange(len(sets))
    has_words = sets.counts[preferred].sum(axis=1) > 0
    pairs, similarities = np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    tried = np.zeros(0, dtype=np.int64)
    stars = star_clusters(pairs, similarities, len(sets))
    for _ in range(MOST_ROUNDS):
        rows = preferred[has_words & (stars.anchors == KEPT)]
        candidates, complete = candidate_pairs(signed, rows, likeness.whole)
        release_pages(signed)
        candidates = candidates[sets.reachable(candidates, likeness)]
        codes = candidates[:, 0] * len(sets) + candidates[:, 1]
        candidates = candidates[~np.isin(codes, tried)]
        if not len(candidates):
            break
        tried = np.union1d(tried, codes)
        exact = np.array([sets.similarity(first, second) for first, second in candidates.tolist()])
        alike = (exact[:, 0] >= likeness.whole) & (exact[:, 1] >= likeness.side)
        pairs = np.concatenate([pairs, rank[candidates[alike]]])
        similarities = np.concatenate([similarities, exact[alike, 0]])
        stars = star_clusters(pairs, similarities, len(sets))
        if complete:
            break
    anchors = np.full(len(sets), KEPT, dtype=np.int64)
    anchors[preferred] = np.where(stars.anchors == KEPT, KEPT, preferred[stars.anchors])
    nearness = np.ones(len(sets))
    nearness[preferred] = stars.similarities
    return NearPairs(Stars(anchors, nearness), len(tried), preferred[pairs])


def _counts_of(chunk: Ragged) -> NDArray[np.int32]:
    counts = side_counts(chunk)
    release_pages(chunk.values)  # all rows are gone over, and of them all only candidates are asked for again
    return counts


def _share(common: int, total: int) -> float:
    return common / (total - common) if total else 1.0
