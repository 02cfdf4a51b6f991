"""Clusters of rows that are alike: each row is like the row that is kept for it, and no chain joins rows that are not.

Joining whatever is linked by a chain of pairs made one cluster of 859,091 of 859,092 rows (marin-community issue 6854).
Here rows are taken in the order in which they are preferred: one that is like no row kept so far is kept, and is an
anchor from then on; any other belongs to the anchor that it is most alike.

Shape legend: N = rows, P = pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEPT = -1


@dataclass(frozen=True, slots=True)
class Stars:
    """The clusters.

    Attributes:
        anchors: int64 [N]: the kept row that stands for each, `KEPT` for a row that is kept.
        similarities: float64 [N]: of each row to its anchor; 1 for a row that is kept.
    """

    anchors: NDArray[np.int64]
    similarities: NDArray[np.float64]

    def sizes(self, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many of some rows each anchor stands for, int64 [N]; itself counts if it is among them.

        Args:
            rows: bool [N], those that are counted.
        """
        clusters = np.where(self.anchors == KEPT, np.arange(len(self.anchors)), self.anchors)
        return np.bincount(clusters[rows], minlength=len(self.anchors))


def star_clusters(pairs: NDArray[np.int64], similarities: NDArray[np.float64], rows: int) -> Stars:
    """Clusters from verified pairs.

    Args:
        pairs: int64 [P, 2], the preferred row first, which is the lower number.
        similarities: float64 [P].
        rows: N.
    """
    anchors = np.full(rows, KEPT, dtype=np.int64)
    nearness = np.ones(rows)
    order = np.lexsort((pairs[:, 0], -similarities, pairs[:, 1]))  # by row; of its partners, the most alike first
    for preferred, row, similarity in zip(
        pairs[order, 0].tolist(), pairs[order, 1].tolist(), similarities[order].tolist(), strict=True
    ):
        # All pairs of `preferred` as the second row came before, as it is the lower number: its fate is known.
        if anchors[row] == KEPT and anchors[preferred] == KEPT:
            anchors[row], nearness[row] = preferred, similarity
    return Stars(anchors, nearness)
