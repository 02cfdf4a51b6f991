"""The parts of an overview, frozen: what a page of a curation shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.funnel import Funnel

KEPT, ANCHOR = "kept", "stands for others"


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as people see it; personal data in its texts are masked.

    Attributes:
        address: where it came from.
        turns: role and text of each, as it was kept or dropped.
        cut: characters that were left out at the end.
        state: `KEPT`, why it went, or `ANCHOR` of a row that was kept in the place of others.
        step: that said so.
        detail: the evidence.
        anchor: address of the row that stands for it.
    """

    address: str
    turns: tuple[tuple[str, str], ...]
    cut: int = 0
    state: str = KEPT
    step: str = ""
    detail: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class RowsMap:
    """Places of rows, so that rows of the same words are near each other.

    Shape legend: P = points.

    Attributes:
        rows: int64 [P]: which of the shown rows each point is.
        places: float64 [P, 2], each between -1 and 1.
        clusters: int32 [P]: the rough topic; -1 for a row without words.
        names: of the topics, most common first.
        vectors: what the places were made of.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.float64]
    clusters: NDArray[np.int32]
    names: tuple[str, ...]
    vectors: str


@dataclass(frozen=True, slots=True)
class Described:
    """Rows of a sample, before or after.

    Attributes:
        rows: how many were looked at.
        total: how many there are.
        lengths: int32 [rows] by what is counted, such as "prompt words".
        languages: rows by ISO 639-1 code, the empty code where the language cannot be told; None where nothing tells.
    """

    rows: int
    total: int
    lengths: Mapping[str, NDArray[np.int32]]
    languages: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class DuplicateCluster:
    """Rows that one row stands for.

    Attributes:
        step: that found them.
        anchor: address of the row that is kept in their place at this step.
        anchor_row: which of the shown rows that is; None where it is not shown.
        size: rows that went.
        members: some of them, as numbers of shown rows.
    """

    step: str
    anchor: str
    anchor_row: int | None
    size: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mended:
    """What was changed in rows for one reason.

    Attributes:
        step: that changed them.
        reason: why.
        changes: how many there are.
        samples: address and what was changed, of some.
    """

    step: str
    reason: str
    changes: int
    samples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """A source, its license where one is stated, and its rows."""

    name: str
    license: str | None
    is_non_commercial: bool
    rows_read: int
    rows_kept: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All that a page shows of a curation.

    Attributes:
        funnel: the books.
        sources: what was read.
        before: rows as they were read.
        after: rows as they are kept.
        map: of kept and dropped rows.
        dropped: dropped or merged rows that could be shown; the map has a sample of them.
        rows: those shown anywhere.
        duplicates: the largest clusters.
        contaminated: numbers of shown rows that hold evaluation items.
        reports: what steps of all rows report, by the name of the step.
        mended: what was changed.
        notes: what the reader said of whole files, and steps of all rows.
    """

    funnel: Funnel
    sources: tuple[SourceCounts, ...]
    before: Described
    after: Described
    map: RowsMap
    dropped: int
    rows: tuple[ShownRow, ...]
    duplicates: tuple[DuplicateCluster, ...]
    contaminated: tuple[int, ...]
    reports: Mapping[str, Mapping[str, Any]]
    mended: tuple[Mended, ...]
    notes: tuple[str, ...]


class PageWriter(Protocol):
    """Draws an overview.

    Attributes:
        key: of all that decides how the page looks; another key makes the page anew.
    """

    @property
    def key(self) -> str:
        """See above."""

    def __call__(self, overview: Overview, target: Path) -> None:
        """Write the page, whole or not at all.

        Raises:
            OSError: the disk refuses.
        """
