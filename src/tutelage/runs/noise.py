"""The noise floor of a run's replies, as `result.json` holds it under `noise`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.runs.fields import Fields
from tutelage.runs.uncertainty import Range, read_range


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Greedy replies of the untouched model to the same prompts in other batches.

    Attributes:
        prompts: so many were asked again.
        differ: of these, another text.
        differ_range: 95 % interval of that share.
        judged: so many of them have a verdict, right or wrong.
        flips: of these, another verdict.
        flips_range: 95 % interval of that share; None where none has one.
    """

    prompts: int
    differ: int
    differ_range: Range | None
    judged: int
    flips: int
    flips_range: Range | None


def read_noise(fields: Fields) -> NoiseFloor | None:
    """What a file says; None where it says nothing, as older files do, or is damaged."""
    counts = [fields.integer(name) for name in ("prompts", "differ", "judged", "flips")]
    prompts, differ, judged, flips = counts
    if not prompts or differ is None or judged is None or flips is None:
        return None
    ranges = [read_range(fields.inner(name)) for name in ("differ_range", "flips_range")]
    return NoiseFloor(prompts, differ, ranges[0], judged, flips, ranges[1])


def noise_in(result: Any) -> NoiseFloor | None:
    """That of a decoded `result.json`."""
    return read_noise(Fields.of(result, "result.json", []).inner("noise"))
