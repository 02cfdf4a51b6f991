"""Raw measurements -> medians, ratios, tables. Pure functions; nothing here runs a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.train.contestants import OURS, Contestant
from benchmarks.train.measured import Measured

LOSS_TOLERANCES = {"fp32": 1e-3, "bf16": 1e-2}
"""How far the losses of the first step may lie apart: bf16 has 8 bits of mantissa and each tool rounds elsewhere."""
FULL_FORMAT = "float32"


@dataclass(slots=True)
class Runs:
    """All runs of one contestant in one method, in the order of the repeats."""

    contestant: Contestant
    measured: list[Measured] = field(default_factory=list)

    def speeds(self, step_tokens: Sequence[int]) -> list[float]:
        """Tokens a second of each run."""
        return [tokens_a_second(one.step_seconds, step_tokens) for one in self.measured]

    @property
    def peak_bytes(self) -> float:
        """Median over the runs."""
        return statistics.median(one.peak_bytes for one in self.measured)

    @property
    def same_numerics(self) -> bool:
        """Whether the optimizer steps fp32 weights, as ours does."""
        return all(one.trained_dtype == FULL_FORMAT for one in self.measured)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ours against the fastest and against the leanest of the others, which need not be the same."""

    fastest: str
    times_as_fast: float
    leanest: str
    times_the_memory: float

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.times_as_fast:.2f} times as fast as the fastest ({self.fastest}), "
            f"{self.times_the_memory:.2f} times the memory of the leanest ({self.leanest})"
        )


def tokens_a_second(step_seconds: Sequence[float], step_tokens: Sequence[int]) -> float:
    """Over all steps but the first, which pays for first touches; over that one where there is no other."""
    first = 1 if len(step_seconds) > 1 else 0
    return sum(step_tokens[first : len(step_seconds)]) / sum(step_seconds[first:])


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios within each repeat, which a machine that slows down for all does not move."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def verdict(runs: Sequence[Runs], step_tokens: Sequence[int], *, same_numerics: bool) -> Verdict | None:
    """Ours (the first) against the others; None where no other is compared.

    Args:
        runs: all contestants of one method.
        step_tokens: tokens of each step.
        same_numerics: only against those whose optimizer steps fp32 weights.
    """
    ours, *rest = runs
    assert ours.contestant.tool == OURS
    others = [one for one in rest if one.contestant.compared and (one.same_numerics or not same_numerics)]
    if not others:
        return None
    speeds = ours.speeds(step_tokens)
    slowest_of_ours = {id(one): paired_ratio(speeds, one.speeds(step_tokens)) for one in others}
    fastest = min(others, key=lambda one: slowest_of_ours[id(one)])
    leanest = min(others, key=lambda one: one.peak_bytes)
    return Verdict(
        fastest.contestant.name,
        slowest_of_ours[id(fastest)],
        leanest.contestant.name,
        ours.peak_bytes / leanest.peak_bytes,
    )


def first_loss_spread(runs: Sequence[Runs]) -> float:
    """Distance between the highest and the lowest loss of the first step, over all runs."""
    losses = [one.step_losses[0] for each in runs for one in each.measured]
    return max(losses) - min(losses)


def odd_tokens(runs: Sequence[Runs], step_tokens: Sequence[int]) -> Mapping[str, int]:
    """Contestants that counted another number of tokens than there are, with what they counted."""
    return {
        each.contestant.name: one.tokens for each in runs for one in each.measured if one.tokens != sum(step_tokens)
    }


def table(runs: Sequence[Runs], step_tokens: Sequence[int]) -> str:
    """A Markdown table of one method."""
    ours = runs[0].speeds(step_tokens)
    lines = [
        "| | tokens/s | lowest to highest | ours / it | peak GB | trained weights | loss of step 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in runs:
        speeds = each.speeds(step_tokens)
        cells = (
            each.contestant.name,
            f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}",
            f"{paired_ratio(ours, speeds):.2f}",
            f"{each.peak_bytes / 1e9:.2f}",
            f"{each.measured[0].trained_parameters:,} {each.measured[0].trained_dtype}",
            f"{each.measured[0].step_losses[0]:.4f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
