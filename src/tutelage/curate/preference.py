"""Which of several rows that are alike is kept.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_duplicates import Keep
from tutelage.curate.store import Rows, value_under
from tutelage.errors import ConfigError


def preferred_rows(keep: Keep, rows: Rows, lengths: NDArray[np.int64], step: str, *, score: str) -> NDArray[np.int64]:
    """All rows, that which is to be kept first: int64 [N]. Of equals the first in the order of the sources.

    Rows without a score come behind those with one.

    Args:
        keep: the rule.
        rows: N rows.
        lengths: characters of each, int64 [N].
        step: who asks, for the error.
        score: the name of the score.

    Raises:
        ConfigError: rows are to be kept by their score, and none has one.
    """
    match keep:
        case "first":
            return np.arange(len(rows), dtype=np.int64)
        case "last":
            return np.arange(len(rows), dtype=np.int64)[::-1].copy()
        case "longest":
            return np.argsort(-lengths, kind="stable")
        case "score":
            return np.argsort(-scores_of(rows, score, f"curate.{step}.keep is 'score'", step), kind="stable")


def score_of(labels: str, name: str) -> float:
    """The number under a name in a row's labels, as `value_under`; NaN where there is none."""
    try:
        return float(value_under(json.loads(labels), name)) if labels else math.nan
    except (TypeError, ValueError):
        return math.nan


def scores_of(rows: Rows, score: str, asked: str, step: str) -> NDArray[np.float64]:
    """The score of each row, float64 [N]: NaN for a row without one.

    Args:
        rows: N rows.
        score: its name.
        asked: which setting needs it, for the error.
        step: whose setting that is.

    Raises:
        ConfigError: no row has one.
    """
    scores = np.array([score_of(row.labels, score) for row in rows], dtype=np.float64)
    if len(scores) and np.isnan(scores).all():
        raise ConfigError(
            f"{asked}, and no row has a score",
            where=f"curate.{step}.score = '{score}'",
            found=f"{len(scores):,} rows without a number under that name in their metadata",
            expected="a field of the rows' metadata, or what a step before gave them, such as model_scores.ifd",
            fix=f"name it in curate.{step}.score, with the step that gives it before '{step}' in curate.steps",
        )
    return scores
