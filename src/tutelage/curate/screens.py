r"""Which rows of a chunk may hold something: one scan of all their texts side by side, before rows are looked at alone.

The scan is RE2's over a column of Arrow: one pass of some 800 MB/s, whatever the pattern asks for, where Python's `re`
takes ten times as long for a class of characters. A screen may let rows through in which nothing is, and must hold back
none in which something is; tests hold each against the answer without it.

Patterns are RE2's: no look-around, `\b`, `\d`, `\s` and `\w` know ASCII alone.

Shape legend: N = rows, T = texts of all rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SPACE: Final = r"\s\p{Z}\x0b\x1c-\x1f\x{85}"
"""Inside of a class: what Python's `str.strip` and `\\s` take for white space."""
DIGIT: Final = r"\p{Nd}"
"""What Python's `\\d` takes for a digit."""
ODD_DIGIT: Final = r"[^\P{Nd}0-9]"
"""A digit beyond ASCII. A pattern with many classes of all digits takes a millisecond to make."""
ODD_CASE: Final = "İıſ\u212a"
"""Letters that Python takes for `i`, `s` or `k` where case does not count, or whose small form is two characters."""


class TextColumn:
    """Texts of rows side by side, of each row as many as there are.

    Args:
        texts: of each row, N.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.counts = np.fromiter(map(len, texts), np.int64, len(texts))
        self.flat = [text for of_row in texts for text in of_row]

    def changed(self, change: Callable[[str], str]) -> TextColumn:
        """The same column with each text changed."""
        other = TextColumn(())
        other.counts, other.flat = self.counts, list(map(change, self.flat))
        return other

    @cached_property
    def row_of_text(self) -> NDArray[np.int64]:
        """The row of each text, int64 [T]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each text, int64 [T]."""
        return np.fromiter(map(len, self.flat), np.int64, len(self.flat))

    @cached_property
    def _array(self) -> pa.Array | None:
        """The texts; None where one holds half of a surrogate pair, which has no UTF-8."""
        import pyarrow as pa

        try:
            return pa.array(self.flat, pa.large_string())
        except UnicodeEncodeError:
            return None

    def matches(self, pattern: str) -> NDArray[np.bool_]:
        """Whether RE2 finds the pattern in each text, bool [T]; true for all where they cannot be scanned."""
        import pyarrow.compute as pc

        if self._array is None:
            return np.ones(len(self.flat), dtype=np.bool_)
        found = pc.match_substring_regex(self._array, pattern).to_numpy(zero_copy_only=False)
        return cast("NDArray[np.bool_]", found)

    def rows_lacking(self, pattern: str) -> NDArray[np.bool_]:
        """Whether any text of each row is one in which RE2 does not find the pattern, bool [N]; true as above."""
        return self.rows_of(~self.matches(pattern) if self._array is not None else self.matches(pattern))

    def rows_with(self, pattern: str) -> NDArray[np.bool_]:
        """Whether RE2 finds the pattern in any text of each row, bool [N]."""
        return self.rows_of(self.matches(pattern))

    def rows_of(self, texts: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether any text of each row is among these, bool [N] from bool [T]."""
        rows = np.zeros(len(self.counts), dtype=np.bool_)
        rows[self.row_of_text[texts]] = True
        return rows


def any_of(literals: Iterable[str]) -> str:
    """A pattern that finds any of these texts, and one that finds nothing where there are none."""
    return "|".join(map(re.escape, literals)) or r"[^\x00-\x{10ffff}]"


def any_case(pattern: str) -> str:
    """A pattern in which case does not count, as wide as Python's own."""
    return f"(?i:{pattern})|[{ODD_CASE}]"
