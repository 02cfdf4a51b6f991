"""What steps that choose, weigh, part or score rows did, as tables and bars for the page of a curation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tutelage.report import numbers as figures

_SCORE_NAMES: Final = {
    "reply_loss": "loss of the reply, in nats a token",
    "reply_loss_alone": "the same without its prompt",
    "ifd": "the first over the second",
}
_HELD: Final = {
    "same_row": "being parts of one row",
    "same_prompt": "the same prompt",
    "first_turn": "the same first question",
    "near_prompt": "nearly the same prompt",
}
Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """A bar of a histogram: from where to where, rows, and their share of the highest bar."""

    name: str
    rows: int
    height: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of rows under one name."""

    name: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> int:
        """All rows with a score."""
        return sum(column.rows for column in self.columns)


@dataclass(frozen=True, slots=True)
class MixedSource:
    """A source before and after it was weighed, as shares of all rows."""

    name: str
    rows_in: int
    rows_out: int
    before: float
    asked: float
    after: float
    epochs: float


def mixed_sources(reports: Reports) -> list[MixedSource]:
    """Shares of the sources before and after `mix`; none where it was not taken."""
    sources = reports.get("mix", {}).get("sources", {})
    total = sum(facts["rows_in"] for facts in sources.values()) or 1
    return [
        MixedSource(
            name, facts["rows_in"], facts["rows_out"], facts["rows_in"] / total, facts["share_asked"], facts["share"],
            facts["epochs"],
        )
        for name, facts in sources.items()
    ]  # fmt: skip


def held_together(reports: Reports) -> list[tuple[str, int]]:
    """What held rows together when they were split, and how many joins that made."""
    joined = reports.get("split", {}).get("clusters", {}).get("joined_by", {})
    return [(_HELD.get(name, name.replace("_", " ")), count) for name, count in joined.items() if count]


def histograms(reports: Reports) -> list[Histogram]:
    """Of the scores that a model or a judge gave."""
    drawn = [
        _drawn(_SCORE_NAMES.get(name, name), _ranges(facts["edges"]), facts["rows"])
        for name, facts in reports.get("model_scores", {}).get("histograms", {}).items()
        if facts
    ]
    for name, counts in reports.get("judge", {}).get("scores", {}).items():
        drawn.append(_drawn(f"{name}, by the judge", list(counts), list(counts.values())))
    return drawn


def _ranges(edges: list[float]) -> list[str]:
    return [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]


def _drawn(name: str, names: list[str], rows: list[int]) -> Histogram:
    highest = max(rows, default=0) or 1
    return Histogram(name, tuple(Column(said, count, count / highest) for said, count in zip(names, rows, strict=True)))


def covered(share: float | None) -> str:
    """A share of what comes again; a dash where nothing does."""
    return "–" if share is None else figures.percent(share)
