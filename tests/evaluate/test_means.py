"""Intervals of means against tables, and against what they promise on drawn data."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.evaluate.means import ratio_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062047), (2, 4.3026527), (5, 2.5705818), (30, 2.0422725), (119, 1.9800999), (100_000, 1.9599877)],
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, rel=2e-6)


def test_the_median_is_zero_and_99_percent_lie_further_out() -> None:
    assert t_quantile(0.5, 7) == pytest.approx(0.0, abs=1e-12)
    assert t_quantile(0.995, 10) == pytest.approx(3.1692727, rel=2e-6)


def test_units_of_one_count_give_the_interval_of_a_mean() -> None:
    interval = ratio_interval([1.0, 2.0, 3.0, 6.0], [1, 1, 1, 1])
    half = 3.1824463 * np.std([1, 2, 3, 6], ddof=1) / 2
    assert (interval.low, interval.high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def test_tokens_of_one_document_are_not_counted_as_independent() -> None:
    """One document taken ten times as long says as much as it did."""
    short = ratio_interval([1.0, 2.0, 4.0], [1, 1, 1])
    long = ratio_interval([10.0, 20.0, 40.0], [10, 10, 10])
    assert (long.low, long.high) == pytest.approx((short.low, short.high))


@pytest.mark.parametrize("units", [8, 32])
def test_95_percent_of_intervals_hold_the_true_ratio(units: int) -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        counts = random.integers(5, 60, units)
        sums = counts * random.gamma(4.0, 0.1, units)  # 0.4 a token on average
        interval = ratio_interval(sums.tolist(), counts.tolist())
        held += interval.low <= 0.4 <= interval.high
    assert 900 <= held <= 980


@pytest.mark.parametrize(("sums", "counts"), [([1.0], [3]), ([], []), ([0.0, 0.0], [0, 0])])
def test_too_little_gives_none(sums: list[float], counts: list[int]) -> None:
    with pytest.raises(ValueError, match="needs two units"):
        ratio_interval(sums, counts)
    with pytest.raises(ValueError, match="degrees of freedom"):
        t_quantile(0.4, 3)
