"""Candidates measured on one half of a general set -> the one to take: the best at the task within the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.runs.uncertainty import Uncertainty

GENERAL, MAIN_SHARE, LOSS = "general", "exact_match", "heldout_loss"


@dataclass(frozen=True, slots=True)
class Trial:
    """A trained candidate, or a value of the dial between its base and it, as it was measured.

    Attributes:
        name: of the row in the table.
        run: the candidate that was trained.
        dial: 1 for what was trained.
        tokens: that training went through, its price; of a value of the dial those of its run.
        seconds: of the whole run with its measures; of a value of the dial those of measuring.
        score: of the task, more is better: a share, or the held-out loss with a minus.
        score_items: of the share; 0 for the loss.
        lost: share of the general items, negative where it gained.
        least: the least that the items leave possible, at the level of their interval.
        most: the most.
        items: of the general half.
    """

    name: str
    run: str
    dial: float
    tokens: int
    seconds: float
    score: float
    score_items: int
    lost: float
    least: float
    most: float
    items: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was taken, whether it is within the limit, and the names of those that one standard error does not tell."""

    trial: Trial
    within: bool
    tied: tuple[str, ...]


def trial_of(
    name: str,
    *,
    run: str,
    dial: float,
    tokens: int,
    seconds: float,
    metrics: Mapping[str, Any],
    uncertainty: Uncertainty | None,
) -> Trial | None:
    """A trial from what was measured; None where the general half or the task was not.

    Args:
        name: as of `Trial`, and so are the next four.
        run: of the candidate.
        dial: its value.
        tokens: trained on.
        seconds: that it took.
        metrics: the fields of `evaluate.suite.Metrics`, after training.
        uncertainty: of its shares beside those of the base, on the same items.
    """
    share = None if uncertainty is None else uncertainty.shares.get(GENERAL)
    if uncertainty is None or share is None or share.change is None:
        return None
    score = score_of(metrics)
    if score is None:
        return None
    name_of_score = main_score(metrics)
    by_name = {MAIN_SHARE: uncertainty.shares.get(MAIN_SHARE), **uncertainty.scores}
    measured = None if name_of_score is None else by_name.get(name_of_score)
    score_items = 0 if measured is None else measured.items
    change = share.change
    lost = (change.broken - change.fixed) / share.items
    low, high = change.range.low, change.range.high
    return Trial(name, run, dial, tokens, seconds, score, score_items, lost, -high, -low, share.items)


def main_score(metrics: Mapping[str, Any]) -> str | None:
    """The name of the task's main score: rows that are exact, or else its first checker's; None where it has none."""
    if metrics.get(MAIN_SHARE) is not None:
        return MAIN_SHARE
    return next(iter(metrics.get("scores", {})), None)


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """The task's main score, or else the held-out loss with a minus; None where neither was measured."""
    name = main_score(metrics)
    if name is not None:
        return float(metrics[name] if name == MAIN_SHARE else metrics["scores"][name])
    return None if metrics.get(LOSS) is None else -float(metrics[LOSS])


def standard_error(trial: Trial) -> float:
    """Of a share, sqrt(p (1 - p) / n), for scores from 0 to 1 the most it can be; of a loss 0, as nothing tells it.

    p is (right + 1) / (n + 2), so that it is not 0 where all replies are right (Laplace; Agresti and Coull 1998).
    """
    if not trial.score_items:
        return 0.0
    share = (trial.score * trial.score_items + 1) / (trial.score_items + 2)
    return math.sqrt(share * (1 - share) / trial.score_items)


def choose(trials: Sequence[Trial], limit: float) -> Choice:
    """The best at the task of those that lost at most `limit`; where none did, the one that lost least.

    Of those within one standard error of the best (the rule of Breiman et al. 1984, section 3.4.3) the one trained on
    the fewest tokens is taken, and of these the one that lost least.

    Args:
        trials: at least one.
        limit: of what may be lost, from 0 to 1.
    """
    within = [trial for trial in trials if trial.lost <= limit]
    if not within:
        return Choice(min(trials, key=lambda trial: (trial.lost, -trial.score, trial.tokens)), within=False, tied=())
    best = max(within, key=lambda trial: trial.score)
    tied = [trial for trial in within if trial.score >= best.score - standard_error(best)]
    taken = min(tied, key=lambda trial: (trial.tokens, trial.lost, -trial.score))
    return Choice(taken, within=True, tied=tuple(trial.name for trial in tied if trial is not taken))
