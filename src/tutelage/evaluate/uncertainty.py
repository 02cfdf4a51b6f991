"""Replies before and after training -> which items were right, and what that many items show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tutelage.evaluate.general import GeneralItem, passes
from tutelage.evaluate.json_task import score_rows
from tutelage.evaluate.statistics import (
    LEVEL,
    MARGIN,
    POWER,
    PairedChange,
    Transitions,
    judge_changes,
    wilson_interval,
)
from tutelage.evaluate.suite import EvalResult
from tutelage.runs.uncertainty import Range, ShareChange, ShareUncertainty, Uncertainty
from tutelage.types import Prompt

Outcomes = Mapping[str, Sequence[bool]]
"""By the name of a share, whether each of its items was right; fields have `FIELD` before their names."""

FIELD = "field "


def item_outcomes(task: Sequence[Prompt], general: Sequence[GeneralItem], eval_result: EvalResult) -> Outcomes:
    """Whether each reply was right, by each share; a share without replies, or with those of other items, stays out.

    Args:
        task: the prompts that were asked.
        general: the items that were asked.
        eval_result: its replies, in the same order.
    """
    outcomes: dict[str, list[bool]] = {}
    if task and len(eval_result.task_replies) == len(task):
        rows = score_rows(task, eval_result.task_replies)
        outcomes = {"exact_match": [row.exact for row in rows], "valid_json": [row.valid for row in rows]}
        for row in rows:
            for name, right in row.fields.items():
                outcomes.setdefault(FIELD + name, []).append(right)
    if general and len(eval_result.general_replies) == len(general):
        replies = eval_result.general_replies
        outcomes["general"] = [passes(item, reply) for item, reply in zip(general, replies, strict=True)]
    return outcomes


def uncertainty_of(before: Outcomes, after: Outcomes) -> Uncertainty:
    """Intervals of all shares and verdicts on their changes, judged together.

    Args:
        before: of the untouched model; empty where it was not measured, as for one model alone.
        after: of the trained one, on the same items in the same order.
    """
    both = [name for name in after if len(before.get(name, ())) == len(after[name])]
    changes = judge_changes({name: Transitions.of(before[name], after[name]) for name in both})
    shares = {
        name: ShareUncertainty(
            items=len(after.get(name) or before[name]),
            before=_range_of(before.get(name)),
            after=_range_of(after.get(name)),
            change=_change_of(changes.get(name)),
        )
        for name in {**after, **before}
    }
    return Uncertainty(
        LEVEL,
        MARGIN,
        POWER,
        shares={name: share for name, share in shares.items() if not name.startswith(FIELD)},
        fields={name.removeprefix(FIELD): share for name, share in shares.items() if name.startswith(FIELD)},
    )


def _range_of(right: Sequence[bool] | None) -> Range | None:
    if not right:
        return None
    interval = wilson_interval(sum(right), len(right))
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
