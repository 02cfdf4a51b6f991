"""Do raters agree: the share of equal verdicts, and Krippendorff's alpha, which takes off what chance would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

Units = Sequence[Sequence[Hashable]]
"""For each item the values that it got, each from another rater; an item with fewer than two says nothing."""


def percent_agreement(units: Units) -> float | None:
    """Share of pairs of raters, over all items, who gave an item one value; None where no item has two."""
    agreeing = pairs = 0
    for values in units:
        pairs += len(values) * (len(values) - 1)
        agreeing += sum(count * (count - 1) for count in Counter(values).values())
    return agreeing / pairs if pairs else None


def krippendorff_alpha(units: Units) -> float | None:
    """Krippendorff's alpha for nominal values, any number of raters and missing values.

    1 - (n - 1) sum o_ck / sum n_c n_k over c != k, where o_ck counts pairs of values c and k within items, each item's
    weighted by 1 / (its values - 1), n_c = sum_k o_ck, and n = sum_c n_c.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C.

    Returns:
        1 where all agree, 0 where they agree as chance would have it, less where they agree less; None where it is not
        defined: no item has two values, or all values are the same.
    """
    disagreeing = 0.0
    totals: Counter[Hashable] = Counter()
    for values in units:
        if len(values) < 2:
            continue
        counts = Counter(values)
        totals.update(counts)
        disagreeing += sum(count * (len(values) - count) for count in counts.values()) / (len(values) - 1)
    n = totals.total()
    expected = sum(count * (n - count) for count in totals.values())
    return 1 - (n - 1) * disagreeing / expected if expected else None
