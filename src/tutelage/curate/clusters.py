"""Rough topics: k-means on vectors of length 1, for reports; nothing is dropped by them.

Shape legend: N = rows, D = numbers of a vector, K = clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.text_vectors import Vectors, unit

ROUNDS = 8
FITTED_ROWS = 10_000
"""Rows that the centers are fitted on; all are then given to the nearest."""
BLOCK_ROWS = 4096


def clusters_of(vectors: Vectors, count: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each row, int32 [N]; a row without words is in cluster -1.

    Args:
        vectors: float32 [N, D] of length 1, or zeros.
        count: K, at least 1; fewer where rows are fewer.
        seed: of the sample and of the first centers.
    """
    clusters = np.full(len(vectors), -1, dtype=np.int32)
    with_words = np.flatnonzero(vectors.any(axis=1))
    if not len(with_words):
        return clusters
    generator = np.random.default_rng(seed)
    size = min(len(with_words), FITTED_ROWS)
    sample = vectors[np.sort(generator.choice(with_words, size, replace=False))]
    centers = sample[np.sort(generator.choice(size, min(count, size), replace=False))]
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centers)
        totals = np.zeros(centers.shape, dtype=np.float64)
        np.add.at(totals, nearest, sample)
        moved = unit(totals).astype(np.float32)
        centers = np.where(moved.any(axis=1, keepdims=True), moved, centers)
    clusters[with_words] = _nearest(vectors[with_words], centers)
    return clusters


def _nearest(vectors: Vectors, centers: Vectors) -> NDArray[np.int64]:
    blocks = [
        (vectors[start : start + BLOCK_ROWS] @ centers.T).argmax(axis=1) for start in range(0, len(vectors), BLOCK_ROWS)
    ]
    return np.concatenate(blocks)
