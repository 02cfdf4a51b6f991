"""Rows that stand for many: facility location by lazy greedy, farthest first (k-center), and DEITA's rule.

Each goes on from the rows that the allowance has taken already, and takes more in its own order until nothing fits.
Of equals the lower row comes first.

Shape legend: N = rows, D = numbers of a vector, E = rows that are to be stood for.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.selection.allowance import Allowance
from tutelage.curate.text_vectors import Vectors

REPRESENTED_ROWS = 4096
"""Rows that facility location is to stand for; of more, so many are drawn, or twice as many as are chosen."""
BLOCK_ROWS = 1024
LOOKED_AT_TOGETHER = 32
"""Candidates whose gain is computed anew together."""


def facility_location(vectors: Vectors, allowance: Allowance, seed: int) -> None:
    """Take each time the row that raises the summed similarity of all rows to their nearest chosen row most.

    Lazy: a gain only shrinks as rows are chosen, so an old gain is a bound, and few are computed anew. Source:
    Minoux 1978; Lin and Bilmes 2011, section 4. Time grows with N x E.
    """
    represented = vectors[_represented(len(vectors), allowance, seed)]
    best = np.zeros(len(represented), dtype=np.float32)
    for row in allowance.taken:
        np.maximum(best, represented @ vectors[row], out=best)
    taken = set(allowance.taken)
    gains = np.concatenate(
        [_gains(vectors[start : start + BLOCK_ROWS], represented, best) for start in range(0, len(vectors), BLOCK_ROWS)]
        or [np.zeros(0)]
    )
    heap = [(-gain, row, len(taken)) for row, gain in enumerate(gains.tolist()) if row not in taken]
    heapq.heapify(heap)
    while heap and not allowance.is_spent:
        _, row, at = heapq.heappop(heap)
        if at == len(allowance.taken):
            if allowance.take(row):
                np.maximum(best, represented @ vectors[row], out=best)
            continue
        stale = [row]
        while heap and len(stale) < LOOKED_AT_TOGETHER and heap[0][2] != len(allowance.taken):
            stale.append(heapq.heappop(heap)[1])
        for candidate, gain in zip(stale, _gains(vectors[stale], represented, best).tolist(), strict=True):
            heapq.heappush(heap, (-gain, candidate, len(allowance.taken)))


def k_center(vectors: Vectors, allowance: Allowance) -> None:
    """Take each time the row whose nearest chosen row is farthest; the first is the one nearest to the mean.

    Source: Gonzalez 1985; Sener and Savarese 2018, algorithm 1. Time grows with N x rows chosen.
    """
    nearest = np.full(len(vectors), -np.inf, dtype=np.float32)
    closed = np.zeros(len(vectors), dtype=bool)
    for row in allowance.taken:
        np.maximum(nearest, vectors @ vectors[row], out=nearest)
        closed[row] = True
    if not allowance.taken and len(vectors):
        nearest = -(vectors @ vectors.mean(axis=0))
    is_first = not allowance.taken
    while not (allowance.is_spent or closed.all()):
        row = int(np.where(closed, np.inf, nearest).argmin())
        closed[row] = True
        if allowance.take(row):
            if is_first:
                nearest[:], is_first = -np.inf, False
            np.maximum(nearest, vectors @ vectors[row], out=nearest)


def score_first(
    vectors: Vectors, ranked: NDArray[np.int64], threshold: float, allowance: Allowance
) -> dict[int, tuple[int, float]]:
    """Take rows in their order, but those that are too like one that is taken. Source: Liu et al. 2024, section 3.4.

    Args:
        vectors: float32 [N, D].
        ranked: rows, the highest score first.
        threshold: least cosine similarity that is too like.
        allowance: what may be taken.

    Returns:
        The nearest taken row and the similarity, of each row that was passed over.
    """
    passed: dict[int, tuple[int, float]] = {}
    taken = set(allowance.taken)
    for start in range(0, len(ranked), BLOCK_ROWS):
        left = ranked[:0] if allowance.is_spent else ranked[start : start + BLOCK_ROWS]
        block = [row for row in left.tolist() if row not in taken]
        if not block:
            continue
        before = list(allowance.taken)
        near, anchors = _nearest_of(vectors[block], vectors, before)
        inside = vectors[block] @ vectors[block].T
        for place, row in enumerate(block):
            if allowance.is_spent:
                break
            if near[place] >= threshold:
                passed[row] = anchors[place], float(near[place])
            elif allowance.take(row):
                closer = inside[place] > near
                near[closer] = inside[place][closer]
                anchors = [row if is_closer else old for is_closer, old in zip(closer, anchors, strict=True)]
    return passed


def nearest_chosen(vectors: Vectors, rows: Sequence[int], chosen: Sequence[int]) -> list[tuple[int, float]]:
    """The chosen row that each of some rows is most like, and the similarity."""
    pairs: list[tuple[int, float]] = []
    for start in range(0, len(rows), BLOCK_ROWS):
        near, anchors = _nearest_of(vectors[list(rows[start : start + BLOCK_ROWS])], vectors, chosen)
        pairs += zip(anchors, near.tolist(), strict=True)
    return pairs


def _nearest_of(block: Vectors, vectors: Vectors, chosen: Sequence[int]) -> tuple[NDArray[np.float32], list[int]]:
    near, anchors = np.full(len(block), -np.inf, dtype=np.float32), np.full(len(block), -1, dtype=np.int64)
    for start in range(0, len(chosen), BLOCK_ROWS):
        part = np.array(chosen[start : start + BLOCK_ROWS], dtype=np.int64)
        similarities = block @ vectors[part].T
        columns = similarities.argmax(axis=1)
        values = similarities[np.arange(len(block)), columns]
        closer = values > near
        near[closer], anchors[closer] = values[closer], part[columns[closer]]
    return near, anchors.tolist()


def _represented(rows: int, allowance: Allowance, seed: int) -> NDArray[np.int64]:
    mean = max(1.0, float(allowance.costs.mean())) if rows else 1.0
    size = min(rows, max(REPRESENTED_ROWS, 2 * int(allowance.budget / mean)))
    return np.sort(np.random.default_rng(seed).permutation(rows)[:size])


def _gains(candidates: Vectors, represented: Vectors, best: NDArray[np.float32]) -> NDArray[np.float64]:
    raised = candidates @ represented.T
    raised -= best
    np.maximum(raised, 0, out=raised)
    return np.asarray(raised.sum(axis=1, dtype=np.float64))
