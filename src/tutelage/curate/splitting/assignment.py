"""Which cluster of rows goes into which split: whole clusters, shares met source by source as far as they can be.

Shape legend: N = rows, C = clusters, S = sources, K = splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer.

    Attributes:
        splits: int64 [N]: the split of each row, by its place in the shares.
        too_large: clusters larger than all that their split was to have: (first row, rows, split), the largest first.
    """

    splits: NDArray[np.int64]
    too_large: tuple[tuple[int, int, int], ...]


def assigned(
    clusters: NDArray[np.int64], sources: NDArray[np.int32], shares: NDArray[np.float64], seed: int
) -> Assignment:
    """Put each cluster into the split that is farthest from its share of the cluster's source.

    Clusters come in a random order, so that a split gets large and small ones alike. One that would overfill its split
    goes to the farthest of those of all sources together that it fits; one that fits none, to that with most room.

    Args:
        clusters: int64 [N]: the first row of the cluster of each row.
        sources: int32 [N].
        shares: float64 [K], all above 0, which sum to one.
        seed: of the order.
    """
    count = len(clusters)
    if not count:
        return Assignment(np.zeros(0, dtype=np.int64), ())
    firsts, numbers, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    of_source = np.zeros((len(firsts), int(sources.max()) + 1), dtype=np.int64)
    np.add.at(of_source, (numbers, sources), 1)
    targets = np.outer(np.bincount(sources, minlength=of_source.shape[1]), shares)
    room, room_of_all = targets.copy(), shares * count
    split_of = np.zeros(len(firsts), dtype=np.int64)
    too_large = []
    for cluster in np.random.default_rng(seed).permutation(len(firsts)).tolist():
        source, size = int(of_source[cluster].argmax()), int(sizes[cluster])
        split = _farthest(room[source], targets[source], int(of_source[cluster, source]))
        if split is None:
            split = _farthest(room_of_all, shares * count, size)
        if split is None:
            split = int(room_of_all.argmax())
        if size > max(1, shares[split] * count):
            too_large.append((int(firsts[cluster]), size, split))
        split_of[cluster] = split
        room[:, split] -= of_source[cluster]
        room_of_all[split] -= size
    return Assignment(split_of[numbers], tuple(sorted(too_large, key=lambda cluster: (-cluster[1], cluster[0]))))


def _farthest(room: NDArray[np.float64], targets: NDArray[np.float64], size: int) -> int | None:
    """The split that lacks the largest part of its rows, of those that hold half of the cluster at least."""
    fits = room >= size / 2
    if not fits.any():
        return None
    lacking = np.where(fits, room / np.maximum(targets, 1e-12), -np.inf)
    return int(lacking.argmax())
