"""Samples of the books of a curation, drawn by its seed while the books are read once, stretch by stretch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.entries import Entry, entries_in
from tutelage.curate.stage_work import entries_file
from tutelage.curate.stages import Stage
from tutelage.curate.store import read_batch


class Kind(NamedTuple):
    """What was said, by which step, and why."""

    step: str
    what: str
    reason: str


class Cluster(NamedTuple):
    """The rows that one row stands for at a stage: which stage, the row's address, how many."""

    stage: int
    anchor: str
    size: int


def drawn(count: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `most` of `count` places, in order."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    return np.sort(generator.choice(count, most, replace=False)).astype(np.int64)


def shares_of(counts: Mapping[Kind, int], most: int) -> dict[Kind, int]:
    """How many of each kind are shown, `most` in all: a rare kind is shown whole before a common one takes the rest."""
    shares: dict[Kind, int] = {}
    for left, kind in enumerate(sorted(counts, key=lambda kind: (counts[kind], kind))):
        shares[kind] = min(counts[kind], (most - sum(shares.values())) // (len(counts) - left))
    return shares


def sampled_entries(
    stages: Sequence[Stage], shares: Mapping[Kind, int], counts: Mapping[Kind, int], generator: np.random.Generator
) -> list[Entry]:
    """Entries of each kind, drawn from all, in the order of the books.

    Args:
        stages: of the curation.
        shares: how many of each kind.
        counts: how many there are of each.
        generator: of the draw.
    """
    places = {kind: set(drawn(counts[kind], shares[kind], generator).tolist()) for kind in sorted(shares)}
    seen: Counter[Kind] = Counter()
    entries: list[Entry] = []
    for stage in stages:
        for number in range(stage.blocks):
            path = entries_file(stage.folder, number)
            batch = read_batch(path)
            columns = (batch.column(name).to_pylist() for name in Kind._fields)
            lines = []
            for line, kind in enumerate(map(Kind._make, zip(*columns, strict=True))):
                if kind in places:
                    if seen[kind] in places[kind]:
                        lines.append(line)
                    seen[kind] += 1
            if lines:
                entries += entries_in(path, lines)
    return entries


def largest_clusters(stages: Sequence[Stage], most: int) -> list[Cluster]:
    """The rows that stand for most others, the largest cluster first."""
    import pyarrow.compute as pc

    clusters: list[Cluster] = []
    for place, stage in enumerate(stages):
        counts: Counter[str] = Counter()
        for number in range(stage.blocks):
            anchors = read_batch(entries_file(stage.folder, number)).column("anchor").drop_null()
            for pair in pc.value_counts(anchors).to_pylist():
                counts[pair["values"]] += pair["counts"]
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        clusters += (Cluster(place, anchor, size) for anchor, size in ordered[:most])
    return sorted(clusters, key=lambda cluster: (-cluster.size, cluster.stage, cluster.anchor))[:most]


def members_of(stages: Sequence[Stage], clusters: Sequence[Cluster], most: int) -> dict[Cluster, list[Entry]]:
    """The first rows of each cluster."""
    wanted: dict[int, dict[str, Cluster]] = defaultdict(dict)
    for cluster in clusters:
        wanted[cluster.stage][cluster.anchor] = cluster
    members: dict[Cluster, list[Entry]] = {cluster: [] for cluster in clusters}
    for place, of_anchor in wanted.items():
        for path, lines in _lines_with(stages[place], of_anchor):
            for entry in entries_in(path, lines):
                found = members[of_anchor[entry.anchor or ""]]
                if len(found) < most:
                    found.append(entry)
    return members


def _lines_with(stage: Stage, anchors: Mapping[str, Cluster]) -> Iterator[tuple[Path, list[int]]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(sorted(anchors), pa.large_string())
    for number in range(stage.blocks):
        path = entries_file(stage.folder, number)
        lines = np.flatnonzero(pc.is_in(read_batch(path).column("anchor"), names).to_numpy(zero_copy_only=False))
        if len(lines):
            yield path, lines.tolist()
