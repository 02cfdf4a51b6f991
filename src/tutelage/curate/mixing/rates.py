"""How many rows of each source a mixture has: numbers alone.

Shape legend: S = sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Rates = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a mixture is to be.

    Attributes:
        weights: float64 [S].
        replay: float64 [S]: share of the result, of a source that is replayed; 0 of the others.
        limit: rows at which a source stops to count for more; None for no limit.
        temperature: at least 1.
        rows: of the result; None for as many as the rest comes to.
        tokens: of the result, in place of `rows`.
        mean_tokens: float64 [S]: of a row of each source, where `tokens` is given.
    """

    weights: Rates
    replay: Rates
    limit: int | None = None
    temperature: float = 1.0
    rows: int | None = None
    tokens: int | None = None
    mean_tokens: Rates | None = None


def rates_of(sizes: Counts, weights: Rates, *, limit: int | None, temperature: float) -> Rates:
    """The rate of each source, float64 [S], which sum to one: its weight times min(rows, limit) to the 1/temperature.

    Source: Raffel et al. 2020, section 3.5.2: examples-proportional mixing with an artificial limit K, and
    temperature-scaled mixing, which is at T = 1 the same. FLAN (Wei et al. 2022, section 2.1) takes K = 3,000.

    Args:
        sizes: int64 [S], rows of each.
        weights: float64 [S].
        limit: K; None for none.
        temperature: T.
    """
    counted = counted_rows(sizes, limit)
    met = counted > 0
    logs = np.full(len(sizes), -np.inf)
    logs[met] = np.log(weights[met]) + np.log(counted[met]) / temperature
    if not met.any():
        return np.zeros(len(sizes))
    rates = np.exp(logs - logs.max())
    return np.asarray(rates / rates.sum())


def counted_rows(sizes: Counts, limit: int | None) -> Counts:
    """What the rows of each source count as: at most `limit`."""
    return sizes if limit is None else np.minimum(sizes, limit)


def planned(sizes: Counts, asked: Asked) -> tuple[Rates, Counts]:
    """The share of the result that each source is to have, and its rows in the result: float64 [S], int64 [S].

    Where no total is asked for, it is what weights and limit come to; a temperature moves rows between sources and
    leaves the total, and what is replayed comes on top.

    Args:
        sizes: int64 [S]: rows of each source that may go on; of a replayed one at least one.
        asked: what the mixture is to be.
    """
    of_task = asked.replay == 0
    task_sizes = np.where(of_task, sizes, 0)
    task_rates = rates_of(task_sizes, asked.weights, limit=asked.limit, temperature=asked.temperature)
    replayed = float(asked.replay.sum())
    shares = task_rates * (1 - replayed) + asked.replay
    if asked.rows is not None:
        total = asked.rows
    elif asked.tokens is not None and asked.mean_tokens is not None:
        total = max(1, round(asked.tokens / max(1e-9, float((shares * asked.mean_tokens).sum()))))
    else:
        task_rows = float((asked.weights * counted_rows(task_sizes, asked.limit)).sum())
        total = round(task_rows / (1 - replayed))
    return shares, rounded(shares, total)


def rounded(shares: Rates, total: int) -> Counts:
    """Whole numbers that sum to the total, each less than one from its share of it (largest remainders).

    Args:
        shares: float64 [S], which sum to one, or are all zero.
        total: of the result.
    """
    if not shares.any():
        return np.zeros(len(shares), dtype=np.int64)
    exact = shares * total
    whole = np.floor(exact + 1e-9).astype(np.int64)
    left = total - int(whole.sum())
    order = np.argsort(whole - exact, kind="stable")  # the largest remainder first, of equals the first source
    whole[order[:left]] += 1
    return whole
