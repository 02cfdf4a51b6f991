"""Do raters agree: the share of equal verdicts, and Krippendorff's alpha, which takes off what chance would give."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

Level = Literal["nominal", "ordinal"]
Units = Sequence[Sequence[Hashable]]
"""For each item the values that it got, each from another rater; an item with fewer than two says nothing."""


def percent_agreement(units: Units) -> float | None:
    """Share of pairs of raters, over all items, who gave an item one value; None where no item has two."""
    agreeing = pairs = 0
    for values in units:
        pairs += len(values) * (len(values) - 1)
        agreeing += sum(count * (count - 1) for count in Counter(values).values())
    return agreeing / pairs if pairs else None


def krippendorff_alpha(units: Units, *, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha for any number of raters and missing values.

    1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck, where o_ck counts ordered pairs of values c and k within items, each
    item's weighted by 1 / (its values - 1), n_c = sum_k o_ck, n = sum_c n_c, and d_ck is how far apart two values are:
    1 for any two that differ (nominal), or the square of how many values lie between them, n_c and n_k by half
    (ordinal).

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, sections C and E.

    Args:
        units: the values of each item; of an ordinal level they can be sorted.
        level: of measurement: names, or places in an order such as ratings.

    Returns:
        1 where all agree, 0 where they agree as chance would have it, less where they agree less; None where it is not
        defined: no item has two values, or all values are the same.
    """
    observed: dict[tuple[Hashable, Hashable], float] = defaultdict(float)
    totals: Counter[Hashable] = Counter()
    for values in units:
        if len(values) < 2:
            continue
        counts = Counter(values)
        totals.update(counts)
        for one, two in itertools.permutations(counts, 2):
            observed[one, two] += counts[one] * counts[two] / (len(values) - 1)
    distance = _ordinal_distances(totals) if level == "ordinal" else None
    disagreeing = sum(pairs * (1 if distance is None else distance[ck]) for ck, pairs in observed.items())
    expected = sum(
        totals[one] * totals[two] * (1 if distance is None else distance[one, two])
        for one, two in itertools.permutations(totals, 2)
    )
    return 1 - (totals.total() - 1) * disagreeing / expected if expected else None


def _ordinal_distances(totals: Mapping[Any, int]) -> dict[tuple[Any, Any], float]:
    ordered = sorted(totals)
    distances: dict[tuple[Any, Any], float] = {}
    for first, one in enumerate(ordered):
        for last in range(first + 1, len(ordered)):
            two = ordered[last]
            between = sum(totals[value] for value in ordered[first : last + 1]) - (totals[one] + totals[two]) / 2
            distances[one, two] = distances[two, one] = between**2
    return distances
