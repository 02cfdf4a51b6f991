"""The noise floor of a run's replies, in a sentence for people."""

from __future__ import annotations

from tutelage.report.numbers import count, percent, percent_range
from tutelage.runs.noise import NoiseFloor
from tutelage.runs.uncertainty import Range


def noise_sentence(noise: NoiseFloor | None) -> str | None:
    """How many replies and verdicts turned in other batches, with intervals; None where none was asked again."""
    if noise is None:
        return None
    parts = [f"{_share(noise.differ, noise.prompts, noise.differ_range)} of the replies differ"]
    if noise.judged:
        parts.append(f"{_share(noise.flips, noise.judged, noise.flips_range)} of the verdicts flip")
    return (
        f"Noise floor (95 % interval): the base, asked {count(noise.prompts)} prompts again in other batches: "
        f"{', '.join(parts)}."
    )


def _share(part: int, whole: int, interval: Range | None) -> str:
    share = percent(part / whole)
    return share if interval is None else f"{share} ({percent_range(interval.low, interval.high)})"
