"""Intervals and tests against published numbers, statsmodels' and simulated items; verdicts at their edges."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import pytest

from tutelage.evaluate.statistics import (
    Interval,
    Transitions,
    holm,
    judge_changes,
    mcnemar_p,
    paired_interval,
    smallest_detectable,
    verdict,
    wilson_interval,
)


def likely_counts(items: int, fixing: float, breaking: float) -> Iterator[tuple[int, int, float]]:
    """(fixed, broken, their trinomial probability)."""
    for fixed in range(items + 1):
        for broken in range(items + 1 - fixed) if breaking else (0,):
            ways = math.comb(items, fixed) * math.comb(items - fixed, broken)
            stayed = (1 - fixing - breaking) ** (items - fixed - broken)
            chance = ways * fixing**fixed * breaking**broken * stayed
            if chance > 1e-8:
                yield fixed, broken, chance


def changed(fixed: int, broken: int, items: int) -> Transitions:
    return Transitions(0, broken, fixed, items - fixed - broken)


@pytest.mark.parametrize(
    ("right", "items", "low", "high"),
    [  # statsmodels 0.15.0, proportion_confint(right, items, method="wilson")
        (0, 24, 0.0, 0.13797620467498026),
        (1, 24, 0.007393456165505796, 0.20241806478655947),
        (12, 24, 0.3142742581957335, 0.6857257418042665),
        (24, 24, 0.8620237953250198, 1.0),
        (65, 80, 0.7134167737100687, 0.8829468953302269),
        (7, 60, 0.0576772064005603, 0.22178788024170865),
        (199, 200, 0.9722262956021069, 0.9991168312843989),
    ],
)
def test_wilson_equals_statsmodels(right: int, items: int, low: float, high: float) -> None:
    interval = wilson_interval(right, items)

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("fixed", "broken", "items", "low", "high", "digits"),
    [
        # Cavo et al. 2012 (59, 6, 16, 80) and Bentur et al. 2009 (1, 1, 7, 12) in Fagerland, Lydersen and Laake 2017,
        # chapter 8; the first is asserted in the tests of R's contingencytables 3.0, the signs turned.
        (16, 6, 161, 0.0054, 0.1240, 4),
        (7, 1, 21, 0.026, 0.517, 3),
        # R's PropCIs::scoreci.mp for 48 and 41 of 549.
        (48, 41, 549, -0.0213, 0.0470, 4),
    ],
)
def test_tango_equals_published_intervals(
    fixed: int, broken: int, items: int, low: float, high: float, digits: int
) -> None:
    interval = paired_interval(changed(fixed, broken, items))

    assert (round(interval.low, digits), round(interval.high, digits)) == (low, high)


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [  # statsmodels 0.15.0, mcnemar(table, exact=True); 16 and 6 stands in R's contingencytables as 0.052479, too
        (0, 0, 1.0),
        (6, 0, 0.03125),
        (5, 0, 0.0625),
        (3, 10, 0.09228515625),
        (16, 6, 0.052478790283203125),
        (40, 20, 0.01348929373119186),
        (300, 260, 0.0992558700573967),
    ],
)
def test_mcnemar_equals_statsmodels(fixed: int, broken: int, p_value: float) -> None:
    assert mcnemar_p(fixed, broken) == pytest.approx(p_value, rel=1e-12)
    assert mcnemar_p(broken, fixed) == mcnemar_p(fixed, broken)


def test_mcnemar_with_counts_beyond_a_float() -> None:
    assert mcnemar_p(1500, 1500) == 1.0
    assert mcnemar_p(3000, 0) == 0.0


def test_holm_equals_statsmodels() -> None:
    # statsmodels 0.15.0, multipletests(p, method="holm")[1]
    assert holm([0.01, 0.04, 0.03, 0.005, 0.04]) == pytest.approx((0.04, 0.09, 0.09, 0.025, 0.09))
    assert holm([0.7, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@pytest.mark.parametrize("items", [24, 60, 200])
def test_wilson_covers(items: int) -> None:
    """Exactly, summed over the binomial: Brown, Cai and DasGupta 2001 show its dips near 0 and 1."""
    intervals = [wilson_interval(right, items) for right in range(items + 1)]
    coverages = []
    for hundredths in range(2, 99):
        share = hundredths / 100
        coverages.append(
            sum(
                math.comb(items, right) * share**right * (1 - share) ** (items - right)
                for right, interval in enumerate(intervals)
                if interval.low <= share <= interval.high
            )
        )

    assert min(coverages) > 0.90
    assert 0.945 < sum(coverages) / len(coverages) < 0.96


@pytest.mark.parametrize("items", [24, 60, 200])
def test_the_paired_interval_covers(items: int) -> None:
    """Summed over likely counts, and simulated: Wald's interval covers 0.38 at 24 items of which 2 % are fixed."""
    generator = random.Random(items)
    cached = cache(lambda fixed, broken: paired_interval(changed(fixed, broken, items)))
    coverages = []
    for fixing, breaking in [(0.02, 0.0), (0.05, 0.05), (0.1, 0.02), (0.2, 0.1), (0.3, 0.0), (0.1, 0.4), (0.5, 0.1)]:
        difference, coverage = fixing - breaking, 0.0
        for fixed, broken, chance in likely_counts(items, fixing, breaking):
            coverage += chance * (cached(fixed, broken).low <= difference <= cached(fixed, broken).high)
        simulated = 0
        for _ in range(1000):
            drawn = [generator.random() for _ in range(items)]
            before = [value >= fixing for value in drawn]
            after = [value < 1 - breaking for value in drawn]
            moved = Transitions.of(before, after)
            interval = cached(moved.fixed, moved.broken)
            simulated += interval.low <= difference <= interval.high
        assert simulated / 1000 == pytest.approx(coverage, abs=0.03)  # 4 standard errors
        coverages.append(coverage)

    assert min(coverages) > 0.93
    assert 0.94 < sum(coverages) / len(coverages) < 0.98


def test_shares_mirror_and_rise() -> None:
    for items in (1, 2, 7, 24, 133):
        intervals = [wilson_interval(right, items) for right in range(items + 1)]
        for right, interval in enumerate(intervals):
            mirrored = intervals[items - right]
            assert 0 <= interval.low <= right / items <= interval.high <= 1
            assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))
        assert all(one.low < two.low and one.high < two.high for one, two in pairwise(intervals))


def test_paired_intervals_mirror_and_rise() -> None:
    for items in (1, 2, 7, 24):
        for discordant in range(items + 1):
            intervals = [paired_interval(changed(fixed, discordant - fixed, items)) for fixed in range(discordant + 1)]
            for fixed, interval in enumerate(intervals):
                mirrored = intervals[discordant - fixed]
                assert -1 <= interval.low <= (2 * fixed - discordant) / items <= interval.high <= 1
                assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low))
            assert all(one.low < two.low and one.high < two.high for one, two in pairwise(intervals))


def test_more_certainty_is_wider_and_more_items_are_narrower() -> None:
    for few, many in ((paired_interval(changed(3, 1, 24)), paired_interval(changed(30, 10, 240))),
                      (wilson_interval(5, 24), wilson_interval(50, 240))):  # fmt: skip
        assert many.high - many.low < few.high - few.low
    assert paired_interval(changed(3, 1, 24), level=0.99).low < paired_interval(changed(3, 1, 24)).low
    assert wilson_interval(5, 24, level=0.99).high > wilson_interval(5, 24).high


def test_the_interval_never_contradicts_the_exact_test() -> None:
    for fixed in range(1, 41):
        for broken in range(fixed):
            if mcnemar_p(fixed, broken) <= 0.05:
                assert paired_interval(changed(fixed, broken, fixed + broken + 20)).low > 0, (fixed, broken)


def test_transitions_are_counted() -> None:
    moved = Transitions.of([True, True, False, False, False, True], [True, False, True, True, False, True])

    assert moved == Transitions(stayed_right=2, broken=1, fixed=2, stayed_wrong=1)
    assert moved.items == 6
    assert moved.difference == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="shorter"):
        Transitions.of([True], [])


def test_no_items_and_impossible_counts_are_refused() -> None:
    for right, items in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="at least 1 item"):
            wilson_interval(right, items)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "word"),
    [
        (0.01, 0.3, 0.04, "gained"),
        (-0.3, -0.01, 0.04, "lost"),
        (0.01, 0.3, 0.06, "not shown"),  # the test after Holm's adjustment says no
        (-0.02, 0.3, 0.01, "not shown"),
        (-0.04, 0.04, 1.0, "kept"),
        (-0.05, 0.04, 1.0, "not shown"),
        (-0.04, 0.05, 1.0, "not shown"),
        (-0.04, -0.01, 0.001, "lost"),  # within the margin, and still lost
        (0.01, 0.04, 0.5, "kept"),
    ],
)
def test_verdicts(low: float, high: float, p_value: float, word: str) -> None:
    assert verdict(Interval(low, high), p_value) == word


def test_kept_by_a_stated_margin() -> None:
    assert verdict(Interval(-0.08, 0.08), 1.0, margin=0.1) == "kept"
    assert verdict(Interval(-0.08, 0.08), 1.0, margin=0.05) == "not shown"


def test_shares_are_judged_together() -> None:
    alone = judge_changes({"a": changed(7, 0, 80)})
    among = judge_changes({"a": changed(7, 0, 80), **{name: changed(2, 2, 80) for name in "bcde"}})

    assert alone["a"].verdict == "gained"
    assert among["a"].verdict == "not shown"
    assert (among["a"].p_value, among["a"].adjusted_p) == (0.015625, 0.078125)
    assert among["a"].interval == alone["a"].interval
    assert (among["a"].smallest_detectable or 0) > (alone["a"].smallest_detectable or 1)


def test_what_few_and_many_items_show_of_no_change() -> None:
    assert judge_changes({"a": changed(0, 0, 24)})["a"].verdict == "not shown"
    assert judge_changes({"a": changed(0, 0, 80)})["a"].verdict == "kept"
    assert judge_changes({"a": changed(0, 80, 80)})["a"].verdict == "lost"


def test_smallest_detectable_has_the_power_it_names() -> None:
    """80 of 100 simulated sets are to reject at that difference, and fewer at a smaller one."""
    generator = random.Random(7)
    for items, discordant in ((24, 0.2), (60, 0.2), (80, 0.5)):
        smallest = smallest_detectable(items, discordant=discordant)
        assert smallest is not None
        for difference, low, high in ((smallest, 0.78, 0.83), (0.7 * smallest, 0.0, 0.65)):
            changing = max(discordant, difference)
            fixing, breaking = (changing + difference) / 2, (changing - difference) / 2
            shown = 0
            for _ in range(2000):
                drawn = [generator.random() for _ in range(items)]
                fixed, broken = sum(value < fixing for value in drawn), sum(value > 1 - breaking for value in drawn)
                shown += fixed > broken and mcnemar_p(fixed, broken) <= 0.05
            assert low < shown / 2000 < high, (items, difference)


def test_smallest_detectable_falls_with_items_and_joins_its_approximation() -> None:
    assert smallest_detectable(5, discordant=0.2) is None  # five coins of one side: p = 0.0625
    assert smallest_detectable(6, discordant=0.2) == pytest.approx(0.964, abs=0.001)  # 0.8 ** (1 / 6)
    sizes = [smallest_detectable(items, discordant=0.2) or 2 for items in (6, 24, 60, 200, 541, 1000, 1001, 1319, 9000)]
    assert sizes == sorted(sizes, reverse=True)
    # (1.960 + 0.842) * sqrt(0.2 / n), as in Miller 2024 (arXiv:2411.00640): the exact test needs a little more.
    for items in (100, 200, 541, 1319):
        smallest = smallest_detectable(items, discordant=0.2)
        assert smallest == pytest.approx(2.8016 * math.sqrt(0.2 / items), abs=0.4 / items + 0.001)
