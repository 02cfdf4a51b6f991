"""The noise floor: how many greedy replies, and verdicts on them, turn when the same model is asked in other batches.

Sums in another order round otherwise, and where two tokens are about as likely the other one is taken. A change after
training that is no larger than this may be nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import JSON_FIELDS, Outcomes, grade
from tutelage.evaluate.statistics import wilson_interval
from tutelage.evaluate.suite import EvalResult
from tutelage.runs.noise import NoiseFloor
from tutelage.runs.uncertainty import Range
from tutelage.types import Prompt


def noise_floor(
    task: Sequence[Prompt],
    general: Sequence[GeneralItem],
    eval_result: EvalResult,
    *,
    checkers: Sequence[str] = (JSON_FIELDS,),
) -> NoiseFloor | None:
    """How many of the replies that were asked for twice differ, and of how many items a verdict turns.

    A verdict is any of those that the item's measures count: of a task valid JSON, each field, the whole row, each
    checker's.

    Args:
        task: the prompts that were asked.
        general: the items that were asked.
        eval_result: replies to them, and to some of them again.
        checkers: of the task's replies.

    Returns:
        None where nothing was asked again, or not what is asked here.
    """
    prompts = differ = judged = flips = 0

    def verdicts(name: str, place: int, reply: str) -> Outcomes:
        if name == "task":
            return grade([task[place]], (), [reply], (), checkers=checkers).outcomes
        return grade((), [general[place]], (), [reply]).outcomes

    for name, replies, items in (
        ("task", eval_result.task_replies, task),
        ("general", eval_result.general_replies, general),
    ):
        again = eval_result.asked_again.get(name, {})
        if not again or len(replies) != len(items):
            continue
        for place, text in again.items():
            before, after = (verdicts(name, place, reply) for reply in (replies[place], text))
            prompts += 1
            differ += text != replies[place]
            judged += bool(before)
            flips += before != after
    if not prompts:
        return None
    return NoiseFloor(prompts, differ, _range(differ, prompts), judged, flips, _range(flips, judged))


def _range(count: int, items: int) -> Range | None:
    if not items:
        return None
    interval = wilson_interval(count, items)
    return Range(interval.low, interval.high)
