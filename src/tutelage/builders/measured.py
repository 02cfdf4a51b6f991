"""What was measured of models, and two of them side by side in the form of `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.evaluate.choice_items import ChoiceItem
from tutelage.evaluate.choice_summary import choice_measure
from tutelage.evaluate.clusters import Clusters, clusters_of
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import Outcomes
from tutelage.evaluate.losses import loss_measures
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.evaluate.uncertainty import of_same_tasks, uncertainty_of
from tutelage.runs.losses import Losses
from tutelage.runs.multiple_choice import ChoiceScores
from tutelage.runs.uncertainty import Uncertainty

NOTHING: dict[str, Any] = {"fields": {}}
"""The metrics of a model that was not measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model: its numbers, which items it had right, its losses by document, and what it made of the choices."""

    metrics: Metrics
    outcomes: Outcomes
    lm_eval_items: Mapping[str, str] = field(default_factory=dict)
    """By task of lm-eval, the hash of what was asked."""
    losses: Losses = field(default_factory=dict)
    choice_items: tuple[ChoiceItem, ...] = ()
    choices: tuple[ChoiceScores, ...] = ()
    clusters: Clusters = field(default_factory=dict)
    """The sources of items of the general set, where any share one."""

    @classmethod
    def of(
        cls, eval_result: EvalResult, general: tuple[GeneralItem, ...], choice_items: tuple[ChoiceItem, ...]
    ) -> Measured:
        """What a suite came to; `general` and `choice_items` are its general set."""
        return cls(
            eval_result.measures,
            eval_result.outcomes,
            eval_result.lm_eval_items,
            eval_result.losses,
            choice_items,
            eval_result.choices,
            clusters_of([*general, *choice_items]),
        )


def uncertainty_between(first: Measured | None, last: Measured | None) -> Uncertainty:
    """What the same items show of the last model beside the first; of one alone its intervals."""
    earlier = {} if first is None else first.outcomes
    if last is None:
        return uncertainty_of(earlier, {}, {} if first is None else first.clusters)
    if first is not None:
        earlier = of_same_tasks(earlier, first.lm_eval_items, last.lm_eval_items)
    return uncertainty_of(earlier, last.outcomes, last.clusters)


def comparison(first: Measured | None, last: Measured | None) -> dict[str, Any]:
    """Numbers of both with intervals and verdicts, as `result.json` has those of before and after.

    Args:
        first: what the other is held against; None = not measured.
        last: the other one; None as `first`.
    """
    known = last or first
    assert known is not None, "one of them was measured"
    scores = [() if side is None else side.choices for side in (first, last)]
    choices = choice_measure(known.choice_items, scores[0], scores[1])
    losses = loss_measures({} if first is None else first.losses, {} if last is None else last.losses)
    return {
        "before": NOTHING if first is None else asdict(first.metrics),
        "after": NOTHING if last is None else asdict(last.metrics),
        "uncertainty": asdict(uncertainty_between(first, last)),
        "losses": {place: asdict(measure) for place, measure in losses.items()},
        "multiple_choice": {} if choices is None else asdict(choices),
    }
