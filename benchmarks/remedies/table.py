"""Results of runs -> one Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.runs.divergence import PLACES, DivergenceMeasure, divergence_in
from tutelage.runs.uncertainty import ShareUncertainty, uncertainty_in

HEADINGS = (
    "remedy", "steps, s", "ratio", "whole run, s", "held-out loss", "task exact", "95 %", "general before", "after",
    "change, points", "95 %", "verdict", *(f"KL, {place}" for place in PLACES.values()),
)  # fmt: skip
MISSING = "-"


def table(results: Mapping[str, Mapping[str, Any]], *, first: str) -> str:
    """A line for each result.

    Args:
        results: `result.json` by the name of the remedy.
        first: the name that the ratio of seconds is to; without it there is no ratio.
    """
    base = step_seconds(results[first]) if first in results else None
    lines = [HEADINGS, tuple("---" if place == 0 else "--:" for place in range(len(HEADINGS)))]
    lines += [(name, *_cells(result, base)) for name, result in results.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def step_seconds(result: Mapping[str, Any]) -> float | None:
    """Of the optimizer steps alone, at the speed that the record has; None where it has none."""
    speed = result["tokens_per_second"]
    return result["total_tokens"] / speed if speed else None


def _cells(result: Mapping[str, Any], base: float | None) -> tuple[str, ...]:
    uncertainty, divergence, after = uncertainty_in(result), divergence_in(result), result["after"]
    shares = {} if uncertainty is None else uncertainty.shares
    seconds = step_seconds(result)
    return (
        _number(seconds, ".1f"),
        MISSING if seconds is None or not base else f"{seconds / base:.2f}",
        _number(result["elapsed_seconds"], ".0f"),
        _number(after["heldout_loss"], ".3f"),
        _percent(after["exact_match"]),
        _range_after(shares.get("exact_match")),
        _percent(result["before"]["general"]),
        _percent(after["general"]),
        *_change(shares.get("general")),
        *(_divergence(divergence.get(place)) for place in PLACES),
    )


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def _range_after(share: ShareUncertainty | None) -> str:
    if share is None or share.after is None:
        return MISSING
    return f"{100 * share.after.low:.0f} to {100 * share.after.high:.0f}"


def _change(share: ShareUncertainty | None) -> tuple[str, str, str]:
    change = None if share is None else share.change
    if share is None or change is None:
        return MISSING, MISSING, MISSING
    points = 100 * (change.fixed - change.broken) / share.items
    return f"{points:+.1f}", f"{100 * change.range.low:+.1f} to {100 * change.range.high:+.1f}", change.verdict


def _divergence(measure: DivergenceMeasure | None) -> str:
    if measure is None:
        return MISSING
    if measure.low is None or measure.high is None:
        return f"{measure.mean:.3f}"
    return f"{measure.mean:.3f} ({measure.low:.3f} to {measure.high:.3f})"
