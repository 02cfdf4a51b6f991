"""Intervals of means that are no shares: of so many units, each with a sum and a count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tutelage.evaluate.statistics import LEVEL, Interval

POINTS = 2001
"""At which the density of Student's t is summed up; its quantiles are then exact to 6 digits."""


def ratio_interval(sums: Sequence[float], counts: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Of sum(sums) / sum(counts), such as the mean over all tokens of documents that were drawn as wholes.

    The units are what was drawn, not what they count: tokens of one document are alike. Source: Cochran 1977, "Sampling
    Techniques", section 6.3 (the ratio estimator's variance), with Student's t as units may be few.

    Args:
        sums: of each unit.
        counts: of each unit; their sum is above 0.
        level: the share of intervals that hold the true ratio.

    Raises:
        ValueError: fewer than two units, or nothing is counted.
    """
    units, total = len(sums), sum(counts)
    if units < 2 or total <= 0:
        raise ValueError(f"{units} units that count {total}: an interval needs two units and something they count")
    ratio = math.fsum(sums) / total
    residuals = [unit_sum - ratio * count for unit_sum, count in zip(sums, counts, strict=True)]
    variance = math.fsum(residual**2 for residual in residuals) * units / (units - 1)
    half = t_quantile((1 + level) / 2, units - 1) * math.sqrt(variance) / total
    return Interval(ratio - half, ratio + half)


@lru_cache(maxsize=256)  # of sets of one size, which are compared again and again
def t_quantile(share: float, degrees: int) -> float:
    """Below which `share` of Student's t lies.

    Args:
        share: from 0.5 up to below 1.
        degrees: of freedom, at least 1.

    Raises:
        ValueError: another share, or no degree of freedom.
    """
    if not 0.5 <= share < 1 or degrees < 1:
        raise ValueError(f"{share} of a t with {degrees} degrees of freedom: asked are 0.5 up to below 1, 1 or more")
    low, high = 0.0, 1.0
    while _below(high, degrees) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def _below(value: float, degrees: int) -> float:
    """The share of Student's t below `value`, which is at least 0.

    Summed over the angle a with value = sqrt(degrees) tan(a), which makes the density cos(a)^(degrees - 1).
    """
    angles = np.linspace(0.0, math.atan(value / math.sqrt(degrees)), POINTS)
    density = np.cos(angles) ** (degrees - 1)
    weights = np.where(np.arange(POINTS) % 2 == 1, 4.0, 2.0)  # Simpson's rule
    weights[[0, -1]] = 1.0
    integral = float((weights * density).sum()) * float(angles[1]) / 3
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * integral
