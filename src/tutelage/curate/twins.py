"""Sources that are copies of another one, whole or for the most part: one file under two names, or in two shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.step import NOT_MERGED

if TYPE_CHECKING:
    from tutelage.curate.store import Rows

LEAST_SHARE: Final = 0.5
"""Of a source's rows that have to be rows of one other source; our choice."""
_MOST_NOTES: Final = 12


def twin_notes(rows: Rows, merged_into: NDArray[np.int64], how: str) -> tuple[str, ...]:
    """A sentence for each source that is mostly rows of one other source, the larger shares first.

    Args:
        rows: N rows.
        merged_into: int64 [N], the row that stands for each merged one (`Decisions.merged_into`).
        how: what a merged row is to the one that stands for it: "have the same prompt as".
    """
    names, sources = rows.sources
    merged = np.flatnonzero(merged_into != NOT_MERGED)
    pairs = sources[merged].astype(np.int64) * len(names) + sources[merged_into[merged]]
    totals = np.bincount(sources, minlength=len(names))
    found = []
    for pair, count in zip(*(values.tolist() for values in np.unique(pairs, return_counts=True)), strict=True):
        first, second = divmod(pair, len(names))
        if first != second and count >= LEAST_SHARE * totals[first]:
            whole = "all" if count == totals[first] else f"{count:,} of"
            sentence = f"{whole} {totals[first]:,} rows of {names[first]} {how} rows of {names[second]}"
            found.append((-count / totals[first], first, second, sentence))
    return tuple(sentence for *_, sentence in sorted(found)[:_MOST_NOTES])
