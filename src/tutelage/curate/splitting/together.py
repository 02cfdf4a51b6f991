"""Rows that must stand on one side of a split: those joined by any link, and by any chain of links.

A chain may join rows that are not alike. For leaving rows out that would be wrong (`star_clusters`); here it costs
nothing but freedom of choice, and a row that is like rows on two sides would be a leak.

Shape legend: N = rows, P = pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Together:
    """Disjoint sets of rows, joined pair by pair. Source: Tarjan 1975 (union-find), with paths halved.

    Args:
        rows: N.
    """

    def __init__(self, rows: int) -> None:
        self._parents = list(range(rows))

    def join(self, first: int, second: int) -> bool:
        """Put two rows together; whether they were apart."""
        roots = self._root(first), self._root(second)
        if roots[0] == roots[1]:
            return False
        self._parents[max(roots)] = min(roots)
        return True

    def join_pairs(self, pairs: NDArray[np.int64]) -> int:
        """Put the rows of each pair together, int64 [P, 2]; how many joins were needed."""
        return sum(self.join(first, second) for first, second in pairs.tolist())

    def join_equals(self, values: NDArray[Any], compared: NDArray[np.bool_]) -> int:
        """Put rows of one value together; how many joins were needed.

        Args:
            values: [N], numbers.
            compared: bool [N]; a row that is not stays out.
        """
        places = np.flatnonzero(compared)
        order = places[np.argsort(values[places], kind="stable")]
        same = values[order][1:] == values[order][:-1]
        return self.join_pairs(np.stack([order[:-1][same], order[1:][same]], axis=1))

    def clusters(self) -> NDArray[np.int64]:
        """The first row of the set that each row is in, int64 [N]."""
        return np.array([self._root(row) for row in range(len(self._parents))], dtype=np.int64)

    def _root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row
