"""The page of a curation: what came in and what went on, a map of rows that can be opened, and what was found."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tutelage.curate.consistency import MARKS
from tutelage.curate.entries import READ
from tutelage.curate.funnel import StepCounts
from tutelage.curate.overview.parts import KEPT, Described, Overview, RowsMap, ShownRow
from tutelage.curate.packages import INSTALL
from tutelage.report import numbers as figures
from tutelage.report.html.chart_library import library_scripts, library_version
from tutelage.report.html.curation_steps import covered, held_together, histograms, mixed_sources
from tutelage.report.html.offline import own_parts, template, write_in_one_move
from tutelage.system.source_code import source_code_sha256

LANGUAGES = 12
"""Rows of the table of languages; the others are one row."""
BEGINNING_CHARACTERS = 160
PAIRS = 50
"""Of sources that differ."""
BINS_A_DOUBLING = 2
"""Of the lengths: half-steps of powers of two, as lengths spread over several of them."""


@dataclass(frozen=True, slots=True)
class CurationPage:
    """Draws overviews; see `tutelage.curate.overview.parts.PageWriter`."""

    @property
    def key(self) -> str:
        """The version of the chart library, and our own code."""
        return f"{library_version()} {source_code_sha256(['tutelage.report', 'tutelage.report.html'])}"

    def __call__(self, overview: Overview, target: Path) -> None:
        """Write the page in one move.

        Raises:
            OSError: the disk refuses.
        """
        write_in_one_move(render_curation(overview), target)


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a table with a share before and after, each between 0 and 1."""

    name: str
    before: float
    after: float


def render_curation(overview: Overview) -> str:
    """The page as text; the same overview gives the same text."""
    library = library_scripts()
    return template("curation_page.html").render(
        overview=overview,
        figures=figures,
        read_name=READ,
        reasons_of=reasons_of,
        beginning=beginning,
        languages=language_bars(overview.before, overview.after),
        marks=list(MARKS),
        sampled=sampled(overview),
        install=INSTALL,
        most_pairs=PAIRS,
        mixed=mixed_sources(overview.reports),
        held=held_together(overview.reports),
        histograms=histograms(overview.reports),
        covered=covered,
        library=[Markup(text) for text in library],  # noqa: S704 - scripts of the library, held against what ends a block
        data=packed_data(overview),
        **own_parts(style=("page.css", "curation_page.css"), script=("curation_page.js",), library=library),
    )


def reasons_of(step: StepCounts) -> Iterator[tuple[str, str, int]]:
    """What a step did, why, and to how many rows."""
    for what in ("dropped", "merged", "changed", "added"):
        for reason, rows in getattr(step, what).most_common():
            yield what, reason, rows


def beginning(row: ShownRow) -> str:
    """The first words of a row."""
    text = " ".join(" / ".join(text[:BEGINNING_CHARACTERS] for _, text in row.turns).split())
    return text if len(text) <= BEGINNING_CHARACTERS else f"{text[:BEGINNING_CHARACTERS]}…"


def sampled(overview: Overview) -> str:
    """Which rows the map shows, in a sentence."""
    shown = [overview.rows[row].state for row in overview.map.rows.tolist()]
    kept = shown.count(KEPT)
    parts = (
        (kept, overview.after.total, "rows that are kept"),
        (len(shown) - kept, overview.dropped, "rows that went"),
    )
    counts = " and ".join(f"{figures.count(part)} of {figures.count(total)} {name}" for part, total, name in parts)
    whole = all(part == total for part, total, _ in parts)
    return f"Shown are {counts}{'' if whole else ': a sample, drawn by the seed, rare reasons first'}."


def language_bars(before: Described, after: Described) -> list[Bar]:
    """Shares of the languages, the most common first; none where nothing tells them."""
    if before.languages is None or after.languages is None:
        return []
    codes = list(dict.fromkeys([*before.languages, *after.languages]))
    named = [code for code in codes if code][:LANGUAGES]
    bars = [_bar(code, [code], before, after) for code in named]
    rest = {"others": [code for code in codes if code and code not in named], "not told": [""]}
    return bars + [_bar(name, group, before, after) for name, group in rest.items() if group]


def _bar(name: str, codes: Sequence[str], before: Described, after: Described) -> Bar:
    shares = [
        sum((sample.languages or {}).get(code, 0) for code in codes) / max(1, sample.rows) for sample in (before, after)
    ]
    return Bar(name, *shares)


def packed_data(overview: Overview) -> str:
    """What the page's script reads: JSON, gzip, base64; the same bytes for the same overview."""
    content = {
        "rows": [
            [row.address, row.state, row.step, row.detail, row.anchor, row.cut, row.turns] for row in overview.rows
        ],
        "map": _map(overview.map),
        "lengths": {
            name: _histogram(overview.before.lengths[name], overview.after.lengths[name])
            for name in overview.before.lengths
        },
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    packed = gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _map(rows_map: RowsMap) -> dict[str, Any]:
    return {
        "rows": rows_map.rows.tolist(),
        "x": rows_map.places[:, 0].tolist(),
        "y": rows_map.places[:, 1].tolist(),
        "topics": rows_map.clusters.tolist(),
        "names": rows_map.names,
    }


def _histogram(before: NDArray[np.int32], after: NDArray[np.int32]) -> Mapping[str, Sequence[float]]:
    """Edges of the bins, and the share of rows in each."""
    longest = max(int(before.max(initial=1)), int(after.max(initial=1)))
    count = int(np.ceil(np.log2(longest + 1) * BINS_A_DOUBLING)) + 1
    powers = np.unique(np.round(2 ** (np.arange(count + 1) / BINS_A_DOUBLING)).astype(np.int64))
    edges = [0, *powers.tolist()]
    bins = [(low, high) for low, high in pairwise(edges)]
    shares = [
        [round(float(((lengths >= low) & (lengths < high)).sum()) / max(1, len(lengths)), 5) for low, high in bins]
        for lengths in (before, after)
    ]
    return {"edges": edges, "before": shares[0], "after": shares[1]}
