"""How many rows may be chosen: a count or a budget of tokens, and the most of each source.

Shape legend: N = rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.source_names import OTHERS


@dataclass(slots=True)
class Allowance:
    """What may still be taken.

    Attributes:
        costs: int64 [N]: what each row takes of the budget: 1, or its tokens.
        budget: rows or tokens in all.
        sources: int32 [N]: the source of each row.
        quotas: most rows by source; None for no bound.
        taken: rows chosen, in the order they were.
        refused: rows that did not fit their source's quota.
    """

    costs: NDArray[np.int64]
    budget: int
    sources: NDArray[np.int32]
    quotas: Sequence[int | None]
    taken: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    spent: int = 0
    _of_source: list[int] = field(init=False)
    _least: int = field(init=False)

    def __post_init__(self) -> None:
        self._of_source = [0] * len(self.quotas)
        self._least = int(self.costs.min()) if len(self.costs) else 1

    @property
    def is_spent(self) -> bool:
        """Whether no row at all fits any more."""
        return self.spent + self._least > self.budget or len(self.taken) == len(self.costs)

    def take(self, row: int) -> bool:
        """Choose a row, if it fits."""
        cost, source = int(self.costs[row]), int(self.sources[row])
        quota = self.quotas[source]
        if quota is not None and self._of_source[source] >= quota:
            self.refused.add(row)
            return False
        if self.spent + cost > self.budget:
            return False
        self.spent += cost
        self._of_source[source] += 1
        self.taken.append(row)
        return True

    def times(self, factor: int) -> Allowance:
        """So many times as much of everything, less what is taken: for what the next rows would add."""
        more = Allowance(
            self.costs, factor * self.budget, self.sources,
            [None if quota is None else factor * quota for quota in self.quotas], list(self.taken),
        )  # fmt: skip
        more.spent, more._of_source = self.spent, list(self._of_source)
        return more


def quotas_by_source(names: Sequence[str], quotas: Mapping[str, int]) -> list[int | None]:
    """The quota of each source by its place in `names`."""
    return [quotas.get(name, quotas.get(OTHERS)) for name in names]
