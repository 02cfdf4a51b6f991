"""Replies that a checker could not check, as `result.json` holds them under `unchecked`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.runs.fields import Fields


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Of one measure: how many replies, and the first rows, each with the cause. They count neither way."""

    replies: int
    rows: tuple[str, ...]


PHASES = {"before": "Before training", "after": "After training"}


def unchecked_in(saved: Any) -> dict[str, Unchecked]:
    """That of decoded JSON, by the name of the measure; what is damaged is left out."""
    return _read(Fields.of(saved, "saved measures", []).inner("unchecked"))


def unchecked_by_phase(result: Any) -> dict[str, dict[str, Unchecked]]:
    """That of `result.json`, decoded or as its `Fields`, under "before" and "after" where something is left."""
    fields = result if isinstance(result, Fields) else Fields.of(result, "result.json", [])
    phases = fields.inner("unchecked")
    return {phase: _read(phases.inner(phase)) for phase in PHASES if phase in phases.content}


def unchecked_notes(by_phase: Mapping[str, Mapping[str, Unchecked]]) -> list[str]:
    """One sentence for each phase and measure.

    Args:
        by_phase: "before" and "after", or words of the caller's.
    """
    return [
        f"{PHASES.get(phase, phase)}: the check {name} failed on {left.replies} "
        f"{'reply, which counts' if left.replies == 1 else 'replies, which count'} neither way: {'; '.join(left.rows)}"
        for phase, unchecked in by_phase.items()
        for name, left in unchecked.items()
    ]


def _read(fields: Fields) -> dict[str, Unchecked]:
    found = {}
    for name in fields.content:
        measure = fields.inner(name)
        replies = measure.integer("replies")
        if replies is not None:
            found[name] = Unchecked(replies, tuple(measure.lines("rows")))
    return found
