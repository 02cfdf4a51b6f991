"""Which of several rows that are alike is kept.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_duplicates import Keep
from tutelage.curate.store import Rows
from tutelage.errors import ConfigError

SCORE = "score"
"""The label that a step which scores rows gives them, or a field of the row's own metadata."""


def preferred_rows(keep: Keep, rows: Rows, lengths: NDArray[np.int64], step: str) -> NDArray[np.int64]:
    """All rows, that which is to be kept first: int64 [N]. Of equals the first in the order of the sources.

    Args:
        keep: the rule.
        rows: N rows.
        lengths: characters of each, int64 [N].
        step: who asks, for the error.

    Raises:
        ConfigError: rows are to be kept by their score, and one has none.
    """
    match keep:
        case "first":
            return np.arange(len(rows), dtype=np.int64)
        case "last":
            return np.arange(len(rows), dtype=np.int64)[::-1].copy()
        case "longest":
            return np.argsort(-lengths, kind="stable")
        case "score":
            scores = np.array([_score(rows, row, step) for row in range(len(rows))])
            return np.argsort(-scores, kind="stable")


def score_of(labels: str, name: str) -> float:
    """The number under a name in a row's labels; NaN where there is none."""
    try:
        return float(json.loads(labels)[name]) if labels else math.nan
    except (KeyError, TypeError, ValueError):
        return math.nan


def _score(rows: Rows, row: int, step: str) -> float:
    labels = rows.stored(row).labels
    score = score_of(labels, SCORE)
    if math.isnan(score):
        raise ConfigError(
            f"curate.{step}.keep is 'score', and a row has none",
            where=str(rows.address(row)),
            found=f"labels {labels}" if labels else "no label",
            expected="a number that a step before gave it",
            fix=f"put the step 'score' before '{step}' in curate.steps, or set curate.{step}.keep=first",
        )
    return score
