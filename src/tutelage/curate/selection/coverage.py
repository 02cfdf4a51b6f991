"""What chosen rows cover of all rows: rough topics, and runs of words that come again.

Shape legend: N = rows, G = sampled runs of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.shingles import distinct
from tutelage.curate.texts import words
from tutelage.curate.word_hashes import Ragged, hashed_words, mixed, ragged_run_hashes

RUN_WORDS = 3
SAMPLED = 8
"""One run of so many is looked at, by its hash: the same runs in every row."""
TOPICS = 100
ROWS_OF_TOPIC = 5
"""A topic has at least this many rows on average, so that few rows have fewer topics."""


def sampled_runs(texts: Sequence[str]) -> Ragged:
    """The distinct runs of three words of each text that are in the sample."""
    runs = distinct(ragged_run_hashes(hashed_words([words(text) for text in texts]), RUN_WORDS))
    is_sampled = mixed(runs.values) % np.uint64(SAMPLED) == 0
    before = np.concatenate([[0], np.cumsum(is_sampled)])
    return Ragged(runs.values[is_sampled], before[runs.offsets])


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of all rows some of them cover; None where nothing comes again.

    Attributes:
        topics: share of the topics that at least one chosen row is in.
        runs: share of the runs of three words that at least two rows hold, that a chosen row holds.
    """

    topics: float | None
    runs: float | None


@dataclass(frozen=True, slots=True)
class Covered:
    """What there is to cover.

    Attributes:
        clusters: int32 [N], -1 for none.
        run_rows: int64 [G]: the row of each run that comes again.
        run_ids: int64 [G]: which run it is, from 0.
    """

    clusters: NDArray[np.int32]
    run_rows: NDArray[np.int64]
    run_ids: NDArray[np.int64]

    @classmethod
    def of(cls, clusters: NDArray[np.int32], runs: Ragged) -> Covered:
        """From the clusters and the sampled runs of all rows."""
        distinct_runs, ids, rows = np.unique(runs.values, return_inverse=True, return_counts=True)
        again = rows > 1
        number = np.where(again, np.cumsum(again) - 1, -1)[ids] if len(distinct_runs) else np.zeros(0, dtype=np.int64)
        row_of_run = np.repeat(np.arange(len(runs)), runs.lengths)
        return cls(clusters, row_of_run[number >= 0], number[number >= 0])

    def by(self, chosen: Sequence[int]) -> Coverage:
        """What some rows cover."""
        is_chosen = np.zeros(len(self.clusters), dtype=bool)
        is_chosen[list(chosen)] = True
        topics = np.unique(self.clusters[self.clusters >= 0])
        met = np.unique(self.clusters[is_chosen & (self.clusters >= 0)])
        total = int(self.run_ids.max()) + 1 if len(self.run_ids) else 0
        covered = len(np.unique(self.run_ids[is_chosen[self.run_rows]]))
        return Coverage(len(met) / len(topics) if len(topics) else None, covered / total if total else None)


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """What chosen rows cover, and what they would with those that follow them in the choice.

    Attributes:
        chosen, following: how many rows; 0 following where none are left.
        now: what those chosen cover.
        then: what both do.
    """

    chosen: int
    following: int
    now: Coverage
    then: Coverage

    @classmethod
    def of(cls, covered: Covered, chosen: Sequence[int], following: Sequence[int]) -> CoverageReport:
        """Of rows that are chosen, and those that would be next."""
        return cls(len(chosen), len(following), covered.by(chosen), covered.by([*chosen, *following]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"chosen": self.chosen, "following": self.following, "now": asdict(self.now), "then": asdict(self.then)}

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"the {self.chosen:,} rows chosen cover {_shares(self.now)}"]
        if self.following:
            lines.append(f"the next {self.following:,} would make it {_shares(self.then)}")
        return lines


def topic_count(rows: int) -> int:
    """How many topics so many rows are cut into."""
    return max(1, min(TOPICS, rows // ROWS_OF_TOPIC))


def _shares(coverage: Coverage) -> str:
    parts = []
    if coverage.topics is not None:
        parts.append(f"{100 * coverage.topics:.1f} % of the topics")
    if coverage.runs is not None:
        parts.append(f"{100 * coverage.runs:.1f} % of the runs of {RUN_WORDS} words that come again")
    return " and ".join(parts) or "nothing that comes again"
