"""Which shape the rows of a file have: told by their columns and the types of their values, over many rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from tutelage.formats.row_shapes.catalog import RowShape, row_shapes

SAMPLED_ROWS: Final = 1000
"""Rows of a file whose values are examined; later ones only where they hold other columns than all before. Our choice:
a file is written by one program, and the types of a column seldom change later than that."""

PATTERN_ROWS: Final = 200
"""Of rows with the same columns, as examining a row costs about as much as reading two. Our choice."""

Pattern = tuple[str, ...]
"""The columns of a row that hold a value, in its order."""


def pattern_of(row: Mapping[str, Any]) -> Pattern:
    """The columns of a row that hold a value."""
    if None not in row.values():
        return tuple(row)
    return tuple([key for key, value in row.items() if value is not None])


class Recognition:
    """What the rows of one file show.

    Args:
        base_needs: how many columns the base shape that a row fits asks for, given the row's columns; 0 without one.

    Attributes:
        fitting: shape -> examined rows that fit it.
        settled: columns of which enough rows were examined.
    """

    def __init__(self, base_needs: Callable[[Mapping[str, Any]], int]) -> None:
        self.fitting: Counter[str] = Counter()
        self.settled: set[Pattern] = set()
        self._base_needs = base_needs
        self._rows = 0
        self._pattern_rows: Counter[Pattern] = Counter()
        self._candidates: dict[Pattern, tuple[RowShape, ...]] = {}
        self._winners: dict[Pattern, Counter[tuple[str, ...]]] = {}

    def add(self, pattern: Pattern, row: Mapping[str, Any]) -> None:
        """Examine a row, unless enough were."""
        candidates = self._candidates.get(pattern)
        if candidates is None:
            columns = frozenset(pattern)
            candidates = tuple(shape for shape in recognizable() if shape.may_fit(columns))
            self._candidates[pattern] = candidates
        elif not candidates or self._rows >= SAMPLED_ROWS or self._pattern_rows[pattern] >= PATTERN_ROWS:
            self.settled.add(pattern)
            return
        self._rows += 1
        if candidates:
            self._pattern_rows[pattern] += 1
            fitting = [shape for shape in candidates if shape.fits(row)]
            self.fitting.update(shape.name for shape in fitting)
            winners = most_specific(fitting, self._base_needs(row))
            self._winners.setdefault(pattern, Counter())[winners] += 1

    def winners(self, pattern: Pattern) -> tuple[str, ...]:
        """The shape of most examined rows with these columns; several that say equally much; none for a base shape."""
        counts = self._winners.get(pattern)
        return counts.most_common(1)[0][0] if counts else ()


@cache
def recognizable() -> tuple[RowShape, ...]:
    """The shapes that are not a base shape under another name."""
    return tuple(shape for shape in row_shapes().values() if not shape.base)


def most_specific(fitting: list[RowShape], base_needs: int) -> tuple[str, ...]:
    """The names of those that need most, where that is more than the base shape needs."""
    needs = max((len(shape.needs) for shape in fitting), default=0)
    if needs <= base_needs:
        return ()
    return tuple(shape.name for shape in fitting if len(shape.needs) == needs)


def is_recognized(row: Mapping[str, Any]) -> bool:
    """Whether a row by itself fits one of the shapes."""
    columns = frozenset(key for key, value in row.items() if value is not None)
    return any(shape.may_fit(columns) and shape.fits(row) for shape in recognizable())
