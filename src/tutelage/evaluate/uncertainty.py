"""Replies before and after training -> what that many items show of each share and mean score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tutelage.evaluate.capabilities import CAPABILITY
from tutelage.evaluate.clusters import Clusters, clustered_change, clustered_share, of_checked
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import FIELD, JSON_FIELDS, LM_EVAL, SCORE, Outcome, Outcomes, grade, is_graded
from tutelage.evaluate.health import HEALTH
from tutelage.evaluate.statistics import (
    LEVEL,
    MARGIN,
    POWER,
    Interval,
    PairedChange,
    ScorePairs,
    Transitions,
    judge_changes,
    wilson_interval,
)
from tutelage.evaluate.suite import EvalResult
from tutelage.runs.uncertainty import Range, ShareChange, ShareUncertainty, Uncertainty
from tutelage.types import Prompt


def item_outcomes(
    task: Sequence[Prompt],
    general: Sequence[GeneralItem],
    eval_result: EvalResult,
    *,
    checkers: Sequence[str] = (JSON_FIELDS,),
) -> Outcomes:
    """Whether each reply was right, or how much so; a measure without replies, or with those of others, stays out.

    Args:
        task: the prompts that were asked.
        general: the items that were asked.
        eval_result: its replies, in the same order; and what was found of them, where it says.
        checkers: of the task's replies.
    """
    replies = eval_result.task_replies, eval_result.general_replies
    if eval_result.outcomes and [*map(len, replies)] == [len(task), len(general)]:
        return eval_result.outcomes
    return grade(task, general, *replies, checkers=checkers).outcomes


def of_same_tasks(outcomes: Outcomes, items: Mapping[str, str], others: Mapping[str, str]) -> Outcomes:
    """The outcomes without those of lm-eval tasks whose items are not those of the other side.

    Args:
        outcomes: of one side.
        items: its `EvalResult.lm_eval_items`.
        others: those of the other side.
    """
    same = tuple(f"{LM_EVAL}{task} " for task, digest in items.items() if others.get(task) == digest)
    return {name: found for name, found in outcomes.items() if not name.startswith(LM_EVAL) or name.startswith(same)}


def uncertainty_of(before: Outcomes, after: Outcomes, clusters: Clusters = MappingProxyType({})) -> Uncertainty:
    """Intervals of all shares and verdicts on their changes.

    Four families are each judged together: what was asked for (shares, fields, scores), its parts by capability, the
    health of replies, and tasks of lm-eval. In one family, a dozen shares that only look closer would hide a loss of
    the general set.

    Args:
        before: of the untouched model; empty where it was not measured, as for one model alone.
        after: of the trained one, on the same items in the same order.
        clusters: the sources of the items of some measures (`clusters.clusters_of`), which are then what was drawn.
    """
    pairs = {
        name: _checked_twice(before[name], after[name])
        for name in after
        if len(before.get(name, ())) == len(after[name])
    }
    families: dict[str, dict[str, Transitions | ScorePairs]] = {"": {}, CAPABILITY: {}, HEALTH: {}, LM_EVAL: {}}
    for name, sides in pairs.items():
        if sides[0]:
            family = next(prefix for prefix in (CAPABILITY, HEALTH, LM_EVAL, "") if name.startswith(prefix))
            families[family][name] = _moves(name, *sides)
    clustered = dict(_clustered(clusters, before, after, pairs))
    changes = {
        name: change
        for family in families.values()
        for name, change in judge_changes(family, clustered=clustered).items()
    }
    shares = {
        name: ShareUncertainty(
            items=_items(name, changes, after.get(name) or before[name]),
            before=_range_of(before.get(name), clusters.get(name)),
            after=_range_of(after.get(name), clusters.get(name)),
            change=_change_of(changes.get(name)),
            graded=is_graded(name, before.get(name, ()), after.get(name, ())),
        )
        for name in {**after, **before}
    }

    def named(prefix: str) -> dict[str, ShareUncertainty]:
        return {name.removeprefix(prefix): share for name, share in shares.items() if name.startswith(prefix)}

    parts = {"fields": FIELD, "scores": SCORE, "capabilities": CAPABILITY, "health": HEALTH, "lm_eval": LM_EVAL}
    main = {name: share for name, share in shares.items() if not name.startswith(tuple(parts.values()))}
    return Uncertainty(LEVEL, MARGIN, POWER, shares=main, **{kind: named(prefix) for kind, prefix in parts.items()})


def _items(name: str, changes: Mapping[str, PairedChange], outcomes: Sequence[Outcome]) -> int:
    """How many were checked, on both sides where they are compared."""
    return changes[name].transitions.items if name in changes else sum(outcome is not None for outcome in outcomes)


def _checked_twice(before: Sequence[Outcome], after: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    pairs = [
        (earlier, later)
        for earlier, later in zip(before, after, strict=True)
        if earlier is not None and later is not None
    ]
    return [earlier for earlier, _ in pairs], [later for _, later in pairs]


def _moves(name: str, before: Sequence[float], after: Sequence[float]) -> Transitions | ScorePairs:
    if is_graded(name, before, after):
        return ScorePairs.of(before, after)
    return Transitions.of([*map(bool, before)], [*map(bool, after)])


def _clustered(
    clusters: Clusters, before: Outcomes, after: Outcomes, pairs: Mapping[str, tuple[list[float], list[float]]]
) -> Iterator[tuple[str, tuple[Interval, float]]]:
    """Interval and p-value of the changes whose items share sources."""
    for name, sources in clusters.items():
        if name in pairs and pairs[name][0] and len(sources) == len(after[name]):
            first, last = pairs[name]
            differences = [later - earlier for earlier, later in zip(first, last, strict=True)]
            found = clustered_change(differences, [*of_checked(sources, before[name], after[name])])
            if found is not None:
                yield name, found


def _range_of(outcomes: Sequence[Outcome] | None, sources: Sequence[str] | None) -> Range | None:
    checked = [outcome for outcome in outcomes or () if outcome is not None]
    if not checked or outcomes is None:
        return None
    interval = None
    if sources is not None and len(sources) == len(outcomes):
        interval = clustered_share(checked, [*of_checked(sources, outcomes)])
    interval = interval or wilson_interval(math.fsum(checked), len(checked))
    return Range(interval.low, interval.high)


def _change_of(change: PairedChange | None) -> ShareChange | None:
    if change is None:
        return None
    return ShareChange(
        Range(change.interval.low, change.interval.high),
        change.transitions.fixed,
        change.transitions.broken,
        change.p_value,
        change.adjusted_p,
        change.verdict,
        change.smallest_detectable,
    )
