"""`dial.json`: what was measured at each value of the dial, written as each ends, so that none is measured twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import cause_of
from tutelage.evaluate.clusters import Clusters
from tutelage.evaluate.grading import Outcome, Outcomes
from tutelage.evaluate.suite import Metrics
from tutelage.report.dial import value_text
from tutelage.runs import folder as run_files
from tutelage.runs.divergence import DivergenceMeasure, divergence_in


@dataclass(frozen=True, slots=True)
class DialMeasure:
    """One value of the dial.

    Attributes:
        metrics: the numbers of the run's own questions.
        outcomes: which items were right, or how much so.
        losses: of each held-out row, the mean of its trained tokens, in nats.
        tokens: of each held-out row, the trained ones.
        divergence: from the base, by place; empty where it was not measured.
        divergence_sums: by place, of each reply of the base over its tokens, in nats.
        replies_sha256: of the base's replies that it was measured on; empty where there are none.
        clusters: the sources of the items of some measures, where any share one (`clusters.clusters_of`).
    """

    metrics: Metrics
    outcomes: Outcomes
    losses: tuple[float, ...]
    tokens: tuple[int, ...]
    divergence: Mapping[str, DivergenceMeasure]
    divergence_sums: Mapping[str, tuple[float, ...]]
    replies_sha256: str
    clusters: Clusters = field(default_factory=dict)


def save_dial_measure(path: Path, key: str, value: float, measure: DialMeasure) -> None:
    """Add one value to those of `path` that were measured on the same; others are left out.

    Args:
        path: of `dial.json`.
        key: the hash of all that was measured and asked.
        value: of the dial.
        measure: what was found.

    Raises:
        SaveError: the disk is full or refuses.
    """
    try:
        saved = run_files.read_json(path)
        kept = dict(saved["values"]) if saved["measured_sha256"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):  # none, damaged, or of another version
        kept = {}
    entry = asdict(measure)
    entry["outcomes"] = {name: _written(outcomes) for name, outcomes in measure.outcomes.items()}
    kept[value_text(value)] = entry
    ordered = {label: kept[label] for label in sorted(kept, key=float)}
    run_files.write_json(path, {"measured_sha256": key, "values": ordered})


def read_dial_measures(path: Path, key: str, *, log: Callable[[str], None]) -> dict[str, DialMeasure]:
    """What `save_dial_measure` wrote of the same key, by the text of the value; what cannot be used is logged."""
    try:
        saved = run_files.read_json(path)
        if saved["measured_sha256"] != key:
            log(f"  note: {path.name} is of other data, settings, weights or versions; its values are measured again")
            return {}
        return {label: _measure(entry) for label, entry in saved["values"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:  # the last two: of another version
        log(f"  note: {path.name} is damaged ({cause_of(error)}); its values are measured again")
        return {}


def _measure(entry: Mapping[str, Any]) -> DialMeasure:
    return DialMeasure(
        Metrics(**entry["metrics"]),
        {name: _read(written) for name, written in entry["outcomes"].items()},
        tuple(entry["losses"]),
        tuple(entry["tokens"]),
        divergence_in(entry),
        {place: tuple(sums) for place, sums in entry["divergence_sums"].items()},
        entry["replies_sha256"],
        {name: tuple(sources) for name, sources in entry["clusters"].items()},
    )


def _written(outcomes: Sequence[Outcome]) -> str | list[Outcome]:
    """A digit for each item where all are right or wrong, which keeps the file short."""
    if any(isinstance(outcome, float) for outcome in outcomes):
        return list(outcomes)
    return "".join("?" if outcome is None else str(int(outcome)) for outcome in outcomes)


def _read(written: str | Sequence[Outcome]) -> tuple[Outcome, ...]:
    if isinstance(written, str):
        return tuple(None if digit == "?" else digit == "1" for digit in written)
    return tuple(written)
