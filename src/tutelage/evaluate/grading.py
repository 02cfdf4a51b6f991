"""Replies -> which were right, or how much so, by each measure; and which could not be checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tutelage.errors import cause_of
from tutelage.evaluate.capabilities import capability_outcomes
from tutelage.evaluate.checkers.registry import CHECKERS
from tutelage.evaluate.general import GeneralItem, passes
from tutelage.evaluate.json_task import score_rows
from tutelage.runs.unchecked import Unchecked
from tutelage.types import Prompt

Outcome: TypeAlias = bool | float | None
"""Right or wrong, or a score from 0 to 1; None = the checker failed on it."""
Outcomes: TypeAlias = Mapping[str, Sequence[Outcome]]
"""By the name of a measure that of each of its items; fields have `FIELD` before their names, scores `SCORE`,
capabilities `evaluate.capabilities.CAPABILITY`, metrics of lm-eval tasks `LM_EVAL`."""

FIELD, SCORE, LM_EVAL = "field ", "score ", "lm_eval "
JSON_FIELDS = "json_fields"
"""The checker that compares JSON objects field by field; its measures are those of `json_task`."""
MOST_NAMED = 5

Item = TypeVar("Item", Prompt, GeneralItem)


@dataclass(frozen=True, slots=True)
class Graded:
    """What was found of replies."""

    outcomes: dict[str, list[Outcome]]
    unchecked: dict[str, Unchecked]

    def mean(self, name: str) -> float | None:
        """Of the replies that were checked by this measure; None where there are none."""
        checked = [outcome for outcome in self.outcomes.get(name, ()) if outcome is not None]
        return math.fsum(checked) / len(checked) if checked else None

    def means(self, prefix: str) -> dict[str, float]:
        """Of all measures with this before their names, without it."""
        means = {name.removeprefix(prefix): self.mean(name) for name in self.outcomes if name.startswith(prefix)}
        return {name: mean for name, mean in means.items() if mean is not None}


def is_graded(name: str, *sides: Sequence[Outcome]) -> bool:
    """Whether a measure has scores between 0 and 1, and not only right and wrong; of lm-eval its outcomes tell."""
    if name.startswith(LM_EVAL):
        return any(isinstance(outcome, float) for outcomes in sides for outcome in outcomes)
    checker = CHECKERS.get(name.removeprefix(SCORE)) if name.startswith(SCORE) else None
    return checker is not None and checker.graded


def grade(
    task: Sequence[Prompt],
    general: Sequence[GeneralItem],
    task_replies: Sequence[str],
    general_replies: Sequence[str],
    *,
    checkers: Sequence[str] = (JSON_FIELDS,),
) -> Graded:
    """Check all replies; those that are missing, or of other items, are left out with their measures.

    Args:
        task: the prompts that were asked; each has what the checkers need, `builders.task` has seen to it.
        general: the items that were asked.
        task_replies: in the order of `task`.
        general_replies: in the order of `general`.
        checkers: of the task's replies, by name.
    """
    graded = Graded({}, {})
    if task and len(task_replies) == len(task):
        for name in checkers:
            if name == JSON_FIELDS:
                _add_json(graded, task, task_replies)
            else:
                checker = CHECKERS[name]
                check = checker.score if checker.graded else _right(checker.score)
                _add(graded, SCORE + name, task, task_replies, check)
    if general and len(general_replies) == len(general):
        _add(graded, "general", general, general_replies, passes)
        graded.outcomes.update(capability_outcomes(general, graded.outcomes["general"]))
    return graded


def _add_json(graded: Graded, task: Sequence[Prompt], replies: Sequence[str]) -> None:
    rows = score_rows(task, replies)
    graded.outcomes["exact_match"] = [row.exact for row in rows]
    graded.outcomes["valid_json"] = [row.valid for row in rows]
    for row in rows:
        for name, right in row.fields.items():
            graded.outcomes.setdefault(FIELD + name, []).append(right)


def _add(
    graded: Graded, name: str, items: Sequence[Item], replies: Sequence[str], check: Callable[[Item, str], Outcome]
) -> None:
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for item, reply in zip(items, replies, strict=True):
        try:
            outcomes.append(check(item, reply))
        except Exception as error:  # noqa: BLE001 a fault in one check must not cost a run what it has measured
            outcomes.append(None)
            failed.append(f"{item.address} ({cause_of(error)})")
    graded.outcomes[name] = outcomes
    if failed:
        graded.unchecked[name.removeprefix(SCORE)] = Unchecked(len(failed), tuple(failed[:MOST_NAMED]))


def _right(score: Callable[[Prompt, str], float]) -> Callable[[Prompt, str], bool]:
    return lambda prompt, reply: score(prompt, reply) == 1
