"""How many rows of each source hold items of each evaluation set, and which sets share items with each other.

Sets that share items are worth knowing of, too: a score on both counts those twice, and rows that were cleaned of one
set may be called clean of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tutelage.curate.store import Rows

Met = dict[str, tuple[str, str]]
"""Of one row: the address of the item and what is shared with it, by evaluation file."""
SharedItems = dict[tuple[str, str], set[tuple[str, str]]]
"""Addresses of two items that share a text, by their two files in order."""
SAMPLES: Final = 20
"""Pairs of items that are shown for two sets."""
_MOST_NOTES: Final = 12


def overlap_report(met: Mapping[int, Met], rows: Rows, shared: SharedItems) -> dict[str, Any]:
    """What becomes `decontaminate.json`.

    Args:
        met: by row, for each that is contaminated.
        rows: all of them.
        shared: between evaluation sets.
    """
    names, sources = rows.sources
    counts = Counter((names[sources[row]], file) for row, of_row in met.items() for file in of_row)
    return {
        "rows": [
            {"source": source, "evaluation": file, "rows": count} for (source, file), count in counts.most_common()
        ],
        "evaluations": [
            {
                "evaluations": [first, second],
                "items": [len({left for left, _ in pairs}), len({right for _, right in pairs})],
                "samples": sorted(map(list, pairs))[:SAMPLES],
            }
            for (first, second), pairs in sorted(shared.items())
        ],
    }


def overlap_notes(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The same in sentences, as many as a screen holds."""
    notes = [
        f"rows of {pair['source']} with items of {pair['evaluation']}: {pair['rows']:,}" for pair in report["rows"]
    ]
    for pair in report["evaluations"]:
        (first, second), (left, right) = pair["evaluations"], pair["items"]
        notes.append(f"evaluation sets share items: {left:,} of {first}, {right:,} of {second}")
    if len(notes) > _MOST_NOTES:
        notes = [*notes[:_MOST_NOTES], f"{len(notes) - _MOST_NOTES:,} further pairs are in decontaminate.json"]
    return tuple(notes)
