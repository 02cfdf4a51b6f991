"""What was dropped, held against what each row is known to be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rows import CONTAMINATED, COPIES, NOISE, TRAPS


def by_kind(labels: Sequence[Mapping[str, Any]], dropped: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Each kind with how many rows of it there are, and how many of them were dropped."""
    total = Counter(label["kind"] for label in labels)
    gone = Counter(label["kind"] for label in labels if str(label["row"]) in dropped)
    order = ("fresh", *COPIES, *CONTAMINATED, "paraphrased", *NOISE, *TRAPS)
    return [(kind, total[kind], gone[kind]) for kind in order if total[kind]]


def copies(labels: Sequence[Mapping[str, Any]], dropped: Mapping[str, str], steps: Sequence[str]) -> dict[str, float]:
    """Recall and precision on copies, by groups of an original and its copies, of which one has to stay.

    Recall is the share of copies too many that were dropped. Precision is the share of rows dropped by these steps that
    are a copy too many: of a group that is gone whole, one row was dropped wrongly.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for label in labels:
        if label["kind"] in COPIES:
            groups[label["of"]].append(label["row"])
    reached = rightly = 0
    for original, rows in groups.items():
        members = [original, *rows]
        reached += min(sum(str(row) in dropped for row in members), len(rows))
        rightly += min(sum(dropped.get(str(row)) in steps for row in members), len(rows))
    wanted = sum(map(len, groups.values()))
    by_steps = sum(step in steps for step in dropped.values())
    return {"recall": reached / max(1, wanted), "precision": rightly / max(1, by_steps)}


def contamination(labels: Sequence[Mapping[str, Any]], dropped: Mapping[str, str], step: str) -> dict[str, float]:
    """Recall and precision on planted evaluation items. A copy of another row is counted neither way."""
    planted = {str(label["row"]) for label in labels if label["kind"] in CONTAMINATED}
    met = {row for row, of_step in dropped.items() if of_step == step}
    reached = {row for row in planted if row in dropped}
    return {"recall": len(reached) / max(1, len(planted)), "precision": len(met & planted) / max(1, len(met))}
