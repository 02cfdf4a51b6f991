"""Items that come from one source, such as questions on one passage: what they show counts the sources as drawn.

The standard error of the paired difference is the clustered one (Miller 2024, "Adding Error Bars to Evals",
arXiv:2411.00640, sections 2.2 and 4.2): items of one source rise and fall together, so that they tell less than as many
of their own. `means.ratio_interval` is that error with Student's t, as sources may be few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tutelage.evaluate.capabilities import CAPABILITY, capabilities_of
from tutelage.evaluate.means import ratio_interval
from tutelage.evaluate.statistics import Interval, score_interval, sign_flip_p, wilson_interval
from tutelage.types import Address

Clusters = Mapping[str, Sequence[str]]
"""By the name of a measure, the source of each of its items."""


class HasSource(Protocol):
    """An item of a general set."""

    @property
    def address(self) -> Address:
        """Where it stands."""

    @property
    def topic(self) -> str:
        """What it is about."""

    @property
    def source(self) -> str:
        """What it shares with others, such as a passage; empty = nothing."""


def clusters_of(items: Sequence[HasSource]) -> dict[str, tuple[str, ...]]:
    """The sources of the general set and of each of its capabilities; nothing where no two items share one.

    Args:
        items: in the order of their outcomes, those with checks first.
    """
    sources = tuple(item.source or str(item.address) for item in items)
    if len(set(sources)) == len(sources):
        return {}
    parts = {
        CAPABILITY + name: tuple(sources[place] for place in places) for name, places in capabilities_of(items).items()
    }
    return {"general": sources, **parts}


def clustered_change(differences: Sequence[float], sources: Sequence[str]) -> tuple[Interval, float] | None:
    """The interval of a mean paired difference and its two-sided p-value; None where each item has its own source.

    The interval is at least that of independent items, as few sources can look alike by chance; the p-value is that of
    the sign-flip test on the sums of the sources.

    Args:
        differences: after minus before, of each item, from -1 to 1.
        sources: of each item.
    """
    sums, counts = sums_by_source(differences, sources)
    if len(sums) == len(differences):
        return None
    plain = _plain(differences, len(differences))
    if not any(sums):  # nothing moved: as many sources, and no more, say so
        plain = _plain(sums, len(sums))
    interval = _joined(plain, sums, counts, lowest=-1.0)
    return interval, sign_flip_p([total / max(counts) for total in sums])


def clustered_share(outcomes: Sequence[float], sources: Sequence[str]) -> Interval | None:
    """The interval of a share or mean score, in the same way."""
    sums, counts = sums_by_source(outcomes, sources)
    if len(sums) == len(outcomes):
        return None
    return _joined(wilson_interval(math.fsum(outcomes), len(outcomes)), sums, counts, lowest=0.0)


def _plain(differences: Sequence[float], items: int) -> Interval:
    gain = math.fsum(difference for difference in differences if difference > 0)
    return score_interval(gain, gain - math.fsum(differences), items)


def _joined(plain: Interval, sums: Sequence[float], counts: Sequence[float], *, lowest: float) -> Interval:
    """Both intervals together, within what is possible; of one source all of that."""
    if len(sums) < 2:
        return Interval(lowest, 1.0)
    clustered = ratio_interval(sums, counts)
    return Interval(max(lowest, min(plain.low, clustered.low)), min(1.0, max(plain.high, clustered.high)))


def sums_by_source(values: Sequence[float], sources: Sequence[str]) -> tuple[list[float], list[float]]:
    """The sum of the values of each source, and how many there are, in the order in which sources first come."""
    by_source: dict[str, list[float]] = {}
    for value, source in zip(values, sources, strict=True):
        by_source.setdefault(source, []).append(value)
    return [math.fsum(group) for group in by_source.values()], [float(len(group)) for group in by_source.values()]


def of_checked(sources: Sequence[str], *sides: Sequence[float | None]) -> Iterator[str]:
    """The sources of the items that were checked on all sides."""
    for source, *outcomes in zip(sources, *sides, strict=True):
        if all(outcome is not None for outcome in outcomes):
            yield source
