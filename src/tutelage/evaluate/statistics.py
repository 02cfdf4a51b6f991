"""What counts of right and wrong replies show: intervals of shares, of paired changes, and the verdict on a change.

An item is right or wrong before training, and after it; or it has a score from 0 to 1 (`ScorePairs`). Sets are often so
small that intervals from the central limit theorem are too narrow (Bowyer et al. 2025, arXiv:2503.01747): used are
Wilson's score interval for one share, Tango's for a paired difference, and McNemar's test in its exact form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Of every interval."""

MARGIN = 0.05
"""Within how much, on either side, a share counts as kept: 5 points."""

POWER = 0.8
SIGN_FLIPS = 9_999  # drawn where there are too many to try all: a standard error of 0.002 at a p-value of 0.05
ALL_FLIPS_ITEMS = 13  # up to so many scores that moved, all sign flips are tried
MOST_EXACT_ITEMS = 1000  # for the smallest detectable difference; above, it is that of the normal approximation

FloatArray: TypeAlias = npt.NDArray[np.float64]
Verdict = Literal["gained", "lost", "kept", "not shown"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends belong to it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Transitions:
    """How many items moved from (right, wrong) before training to (right, wrong) after it."""

    stayed_right: int
    broken: int
    """Right before, wrong after: 1 -> 0."""
    fixed: int
    """Wrong before, right after: 0 -> 1."""
    stayed_wrong: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Transitions:
        """Count the moves of items, which stand in one order in both.

        Raises:
            ValueError: the two have different lengths.
        """
        pairs = list(zip(map(bool, before), map(bool, after), strict=True))
        return cls(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))

    @property
    def items(self) -> int:
        """All of them."""
        return self.stayed_right + self.broken + self.fixed + self.stayed_wrong

    @property
    def difference(self) -> float:
        """Share right after minus share right before, from -1 to 1."""
        return (self.fixed - self.broken) / self.items


@dataclass(frozen=True, slots=True)
class ScorePairs:
    """The differences after minus before of scores from 0 to 1, one for each item."""

    differences: tuple[float, ...]

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> ScorePairs:
        """Of items that stand in one order in both.

        Raises:
            ValueError: the two have different lengths, or a score is not from 0 to 1.
        """
        if not all(0 <= score <= 1 for score in (*before, *after)):
            raise ValueError("a score is not from 0 to 1")
        return cls(tuple(later - earlier for earlier, later in zip(before, after, strict=True)))

    @property
    def items(self) -> int:
        """All of them."""
        return len(self.differences)

    @property
    def fixed(self) -> int:
        """Items whose score rose."""
        return sum(difference > 0 for difference in self.differences)

    @property
    def broken(self) -> int:
        """Items whose score fell."""
        return sum(difference < 0 for difference in self.differences)

    @property
    def gain(self) -> float:
        """All rises together."""
        return math.fsum(difference for difference in self.differences if difference > 0)

    @property
    def loss(self) -> float:
        """All falls together, as a positive number."""
        return -math.fsum(difference for difference in self.differences if difference < 0)


@dataclass(frozen=True, slots=True)
class PairedChange:
    """One share, or mean of scores, before and after training, on the same items."""

    transitions: Transitions | ScorePairs
    interval: Interval
    """Of the difference after minus before."""
    p_value: float
    """Of the exact McNemar test; of scores, of the sign-flip test."""
    adjusted_p: float
    """The same by Holm's method, over all changes that were judged together."""
    verdict: Verdict
    smallest_detectable: float | None
    """See `smallest_detectable`; None where no change of so few items could be shown."""


def wilson_interval(right: float, items: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share (Wilson 1927, JASA 22:209-212; Brown, Cai and DasGupta 2001, equation 4).

    Of the mean p of scores X in [0, 1] it is conservative: X^2 <= X, so Var X = E X^2 - p^2 <= p (1 - p), the variance
    that it reckons with.

    Args:
        right: of the items, from 0 to `items`; or the sum of their scores.
        items: at least 1.
        level: the share of intervals that hold the true share, at most 1.

    Returns:
        An interval inside [0, 1] that holds right / items.
    """
    _require_counts(right, items)
    z = _quantile(level)
    share, weight = right / items, z * z / items
    center = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / items + weight / (4 * items))
    # The formula gives 0 and 1 there up to rounding.
    return Interval(0.0 if right == 0 else center - half, 1.0 if right == items else center + half)


def paired_interval(transitions: Transitions, *, level: float = LEVEL) -> Interval:
    """Tango's score interval of the paired difference (Tango 1998, Statistics in Medicine 17:891-908, eq. 24-26).

    All differences d that the score test does not reject, |T(d)| <= z, with

        T(d) = (fixed - broken - n d) / sqrt(n (2 q + d (1 - d)))

    where q is the share of broken items that is most likely if d is true. Unlike Wald's interval it holds where a
    count is 0; Fagerland, Lydersen and Laake (2014, Statistics in Medicine 33:2850-2875) recommend it. It
    excludes 0 wherever the exact McNemar test rejects at 1 - level.

    Returns:
        An interval inside [-1, 1] that holds the difference.
    """
    return score_interval(transitions.fixed, transitions.broken, transitions.items, level=level)


def score_interval(gain: float, loss: float, items: int, *, level: float = LEVEL) -> Interval:
    """`paired_interval` from sums: of items fixed and broken or, of scores, of all rises and of all falls.

    Of the mean d of differences D in [-1, 1] it is conservative: D^2 <= |D|, so with q = E max(-D, 0), for which
    E |D| = 2 q + d, Var D = E D^2 - d^2 <= 2 q + d - d^2 = 2 q + d (1 - d), the variance in Tango's score.

    Args:
        gain: at least 0.
        loss: the same; both together at most `items`.
        items: at least 1.
        level: of the interval.
    """
    _require_counts(gain + loss, items)
    z, difference = _quantile(level), (gain - loss) / items

    def score(d: float) -> float:
        return _tango_score(gain, loss, items, d)

    return Interval(
        low=_crossing(lambda d: score(d) <= z, -1.0, difference),
        high=_crossing(lambda d: score(d) < -z, difference, 1.0),
    )


def mcnemar_p(fixed: int, broken: int) -> float:
    """Two-sided p-value of the exact McNemar test (McNemar 1947): fair coins fall at least as unevenly.

    Args:
        fixed: items that turned from wrong to right.
        broken: items that turned from right to wrong.
    """
    flips = fixed + broken
    ways = total = 1
    for heads in range(min(fixed, broken)):
        ways = ways * (flips - heads) // (heads + 1)
        total += ways
    share: float = 2 * total / 2**flips  # of all sequences of flips, in whole numbers that a float cannot hold
    return min(1.0, share)


def sign_flip_p(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value: signs that fall at random make the sum of the differences at least as far from 0.

    All signs are tried where few items moved; else `SIGN_FLIPS` are drawn, and the ones that were seen count as one of
    them, which keeps the test valid (Fisher 1935, "The Design of Experiments", section 21; Phipson and Smyth 2010).

    Args:
        differences: of each item; those of 0 say nothing.
        seed: of what is drawn.
    """
    moved = np.array([difference for difference in differences if difference], dtype=np.float64)
    if not len(moved):
        return 1.0
    least = abs(float(moved.sum())) - 1e-9  # equal sums differ by rounding
    if len(moved) <= ALL_FLIPS_ITEMS:
        flips = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float(np.mean(np.abs((1 - 2 * flips) @ moved) >= least))
    generator = np.random.default_rng(seed)
    beyond = sum(abs(float(moved @ (1 - 2 * generator.integers(0, 2, len(moved))))) >= least for _ in range(SIGN_FLIPS))
    return (beyond + 1) / (SIGN_FLIPS + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    Rejecting where they are at most alpha keeps the chance of any false rejection at or below alpha.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def verdict(interval: Interval, adjusted_p: float, *, level: float = LEVEL, margin: float = MARGIN) -> Verdict:
    """What an interval of a difference shows.

    gained, lost: the interval excludes 0, and so does the test after Holm's adjustment.
    kept: the whole interval lies within the margin; two one-sided tests (Schuirmann 1987), each at (1 - level) / 2.
    not shown: neither, which says nothing about the model.
    """
    if adjusted_p <= 1 - level and interval.low > 0:
        return "gained"
    if adjusted_p <= 1 - level and interval.high < 0:
        return "lost"
    return "kept" if -margin < interval.low and interval.high < margin else "not shown"


@lru_cache(maxsize=1024)  # fields have as many items as one another, and often as many that change
def smallest_detectable(
    items: int, *, discordant: float, alpha: float = 1 - LEVEL, power: float = POWER
) -> float | None:
    """The smallest true difference that the exact McNemar test shows with this power.

    Up to `MOST_EXACT_ITEMS` items the power is summed over the number of items that change, which is binomial; above,
    the difference solves n = (z_alpha sqrt(c) + z_power sqrt(c - d^2))^2 / d^2 (Connor 1987, Biometrics 43:207-211).

    Args:
        items: of the set.
        discordant: share of the items whose reply turns from right to wrong or back. A larger difference needs more
            of them; they then all turn one way.
        alpha: the level of the test.
        power: the chance that it rejects.

    Returns:
        From 0 to 1, to about 0.0003; None where even a change of every item is not shown.
    """
    if items <= MOST_EXACT_ITEMS:
        reaches = _exact_power(items, alpha)
    else:
        z_alpha, z_power = _quantile(1 - alpha), NormalDist().inv_cdf(power)

        def reaches(changing: float, difference: float) -> float:
            spread = z_alpha * math.sqrt(changing) + z_power * math.sqrt(max(0.0, changing - difference**2))
            return 1.0 if items * difference**2 >= spread**2 else 0.0

    if reaches(1.0, 1.0) < power:
        return None
    return _crossing(lambda d: d > 0 and reaches(max(discordant, d), d) >= power, 0.0, 1.0, halvings=12, upper=True)


def judge_changes(
    by_name: Mapping[str, Transitions | ScorePairs],
    *,
    clustered: Mapping[str, tuple[Interval, float]] = MappingProxyType({}),
    level: float = LEVEL,
    margin: float = MARGIN,
) -> dict[str, PairedChange]:
    """Judge several shares together, so that many shares do not make one false 'gained' or 'lost' likely.

    The smallest detectable difference is that of a share that moves alone, at Holm's first step: alpha over the number
    of shares, with the discordant items seen; of scores that of a share whose items move as much in all.

    Args:
        by_name: of at least one item each.
        clustered: interval and p-value of those whose items share sources (`clusters.clustered_change`).
        level: of the intervals; 1 - level is the level of the tests.
        margin: of 'kept'.
    """
    p_values = [clustered[name][1] if name in clustered else _p_value(moved) for name, moved in by_name.items()]
    changes = {}
    for (name, moved), p_value, adjusted_p in zip(by_name.items(), p_values, holm(p_values), strict=True):
        gain, loss = (moved.gain, moved.loss) if isinstance(moved, ScorePairs) else (moved.fixed, moved.broken)
        interval = clustered[name][0] if name in clustered else score_interval(gain, loss, moved.items, level=level)
        changes[name] = PairedChange(
            moved,
            interval,
            p_value,
            adjusted_p,
            verdict(interval, adjusted_p, level=level, margin=margin),
            smallest_detectable(moved.items, discordant=(gain + loss) / moved.items, alpha=(1 - level) / len(by_name)),
        )
    return changes


def _p_value(moved: Transitions | ScorePairs) -> float:
    return sign_flip_p(moved.differences) if isinstance(moved, ScorePairs) else mcnemar_p(moved.fixed, moved.broken)


def _tango_score(fixed: float, broken: float, items: int, difference: float) -> float:
    """T of `paired_interval`: it falls as the difference rises."""
    linear = -fixed - broken + (2 * items - fixed + broken) * difference
    constant = -broken * difference * (1 - difference)
    most_likely = (math.sqrt(max(0.0, linear**2 - 8 * items * constant)) - linear) / (4 * items)
    variance = items * (2 * most_likely + difference * (1 - difference))
    distance = fixed - broken - items * difference
    if variance <= 0:  # no item may change, or all must
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _crossing(
    beyond: Callable[[float], bool], low: float, high: float, *, halvings: int = 50, upper: bool = False
) -> float:
    """Where `beyond` turns from false to true between low and high: the last false place, or the first true one."""
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high if upper else low


def _exact_power(items: int, alpha: float) -> Callable[[float, float], float]:
    """A function of (share that changes, difference): the chance that the exact McNemar test shows it, right way."""
    log_factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, items + 1)))))

    def probabilities(trials: int, chance: float) -> FloatArray:
        """Binomial, of 0 to `trials` successes."""
        if chance in (0.0, 1.0):
            certain = np.zeros(trials + 1)
            certain[round(chance) * trials] = 1.0
            return certain
        successes = np.arange(trials + 1)
        ways = log_factorials[trials] - log_factorials[successes] - log_factorials[trials - successes]
        probability: FloatArray = np.exp(
            ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance)
        )
        return probability

    def fewest_wins(changed: int) -> int:
        tails = np.cumsum(probabilities(changed, 0.5)[::-1])  # of at least `changed`, `changed` - 1, ... wins
        return changed + 1 - int(np.sum(2 * tails <= alpha))

    def power(changing: float, difference: float) -> float:
        chance = min(1.0, (1 + difference / changing) / 2)
        likely = probabilities(items, changing)
        shown = 0.0
        for changed in np.flatnonzero(likely > 1e-7).tolist():
            if changed not in wins:
                wins[changed] = fewest_wins(changed)
            shown += likely[changed] * probabilities(changed, chance)[wins[changed] :].sum()
        return shown

    wins: dict[int, int] = {}
    return power


def _quantile(level: float) -> float:
    """Of the normal distribution, so that this share lies within it on both sides."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _require_counts(right: float, items: int) -> None:
    if not 0 <= right <= items or items < 1:
        raise ValueError(f"{right} of {items} items: expected at least 1 item, and from 0 to all of them")
