"""Rows of held-out tasks as evaluation items: choices that are weighed, prompts whose replies are checked, references.

Choices and checks go into one general set (`evaluation.jsonl`); every row is also a conversation (`held_out.jsonl`),
for the loss on replies that are right.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.config.synthesis import TaskSettings
from tutelage.curate.row_json import row_json, with_metadata
from tutelage.synthesize.tasks.rendering import Draw, Renderer, choices_of, conversation_of
from tutelage.synthesize.tasks.table import TaskRow, table_files, task_rows, template_error
from tutelage.synthesize.tasks.task import Task
from tutelage.synthesize.tasks.templates import TaskTemplate, TemplateProblem
from tutelage.types import Drop
from tutelage.words import has_word

WRITTEN = "written"
"""What the topic of items with choices says where a reply in words is asked for."""


@dataclass(slots=True)
class HeldOut:
    """What became of the rows of a held-out task: rows = items + dropped, by reason.

    Attributes:
        task: whose rows they are.
        rows: all of its table.
        items: lines of the general set; none where the task has neither choices nor checks.
        written: how many rows with choices are asked for a reply in words, too; each of them has a second item.
        conversations: lines of conversations, one a row that is not dropped.
        dropped: rows by reason.
    """

    task: Task
    rows: int = 0
    items: list[str] = field(default_factory=list)
    written: int = 0
    conversations: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def kind(self) -> str:
        """How its replies are judged."""
        return "choices" if self.task.file.choices is not None else "checks" if self.task.file.checks else "reference"

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the books balance."""
        assert self.rows == len(self.conversations) + self.dropped.total(), f"{self.task.name}: rows are lost"
        return {
            "cluster": self.task.file.cluster,
            "rows": self.rows,
            "kept": len(self.conversations),
            "judged_by": self.kind,
            "written": self.written,
            "dropped": dict(sorted(self.dropped.items())),
        }


def held_out_rows(
    task: Task, table: str, settings: TaskSettings, seed: int, renderer: Renderer, *, max_rows: int | None = None
) -> HeldOut:
    """The rows of a held-out task as items, at most `settings.held_out_items` of them.

    Args:
        task: whose rows.
        table: where its table is.
        settings: how many.
        seed: of the template that each row draws.
        renderer: of the task, without exemplars.
        max_rows: of the table; None reads all.

    Raises:
        DataError: a template does not fit a row.
    """
    result = HeldOut(task)
    usable: dict[bytes, tuple[int, TaskRow]] = {}
    for row in task_rows(task, table_files(table, lambda _text: None), max_rows=max_rows):
        result.rows += 1
        reason = row.reason if isinstance(row, Drop) else _unusable(task, row)
        if reason is None and isinstance(row, TaskRow):
            identity = row.identity(task.name)
            reason = "same_values" if identity in usable else None
            usable.setdefault(identity, (result.rows, row))
        if reason is not None:
            result.dropped[reason] += 1
    chosen = heapq.nsmallest(settings.held_out_items, usable)
    result.dropped["not_drawn"] += len(usable) - len(chosen)
    in_words = set(chosen[: settings.held_out_written])
    for identity in sorted(chosen, key=lambda identity: usable[identity][0]):
        draw = Draw(seed, identity, "evaluation")
        _add(result, usable[identity][1], draw, renderer, in_words=identity in in_words)
    result.dropped = +result.dropped
    return result


def _unusable(task: Task, row: TaskRow) -> str | None:
    choices = [choice.strip() for choice in choices_of(task, row)]
    if not choices:
        return None
    if len(choices) < 2 or len(set(choices)) < len(choices):
        return "same_choices"
    return None if task.straight[0].target.render(row.values).strip() in choices else "answer_not_a_choice"


def _add(result: HeldOut, row: TaskRow, draw: Draw, renderer: Renderer, *, in_words: bool) -> None:
    task = result.task
    rendered = renderer.rendered(row, draw.of(task.straight), "zero_shot", draw)
    if isinstance(rendered, Drop):
        result.dropped[rendered.reason] += 1
        return
    conversation = conversation_of(task, row.address, rendered)
    address = {"file": row.address.file, "number": row.address.number, "unit": row.address.unit}
    result.conversations.append(with_metadata(row_json(conversation), address | dict(conversation.metadata)) + "\n")
    item = {"id": f"{task.name}/{row.address.number}", "topic": task.name, "prompt": rendered.prompt}
    if result.kind == "choices":
        choices, right = [choice.strip() for choice in choices_of(task, row)], rendered.reply.strip()
        result.items.append(_line(item | {"choices": choices, "answer": choices.index(right)}))
        if in_words:
            named = {"id": f"{item['id']}/{WRITTEN}", "topic": f"{task.name}, {WRITTEN}"}
            result.items.append(_line(item | named | {"checks": _names_alone(right, choices), "reference": right}))
            result.written += 1
    elif result.kind == "checks":
        result.items.append(_line(item | {"checks": _checks(task, row), "reference": rendered.reply}))


def _names_alone(right: str, choices: Sequence[str]) -> list[dict[str, Any]]:
    """Checks that a reply names the right choice and no other.

    Another choice that stands inside the right one ("coin" in "a coin") is in every right reply, and is no matter.
    """
    others = [choice for choice in choices if not has_word(right, choice)]
    checks: list[dict[str, Any]] = [{"kind": "contains_all", "values": [right]}]
    return [*checks, *([{"kind": "excludes", "values": others}] if others else [])]


def _checks(task: Task, row: TaskRow) -> list[Any]:
    try:
        return [_filled(check, row, number=check.get("kind") == "number") for check in task.file.checks]
    except (TemplateProblem, ValueError) as problem:
        raise template_error(task, row.address, "checks", TemplateProblem(str(problem))) from problem


def _filled(value: Any, row: TaskRow, *, number: bool) -> Any:
    """A check with the row's values in its texts; the `value` of a number is one.

    Raises:
        TemplateProblem: a text does not fit the row.
        ValueError: it is to be a number and is none.
    """
    if isinstance(value, str):
        return TaskTemplate(value).render(row.values)
    if isinstance(value, list):
        return [_filled(inner, row, number=number) for inner in value]
    if not isinstance(value, dict):
        return value
    filled = {name: _filled(inner, row, number=number) for name, inner in value.items()}
    if number and isinstance(filled.get("value"), str):
        filled["value"] = float(filled["value"].replace(",", ""))
    return filled


def _line(item: dict[str, Any]) -> str:
    return json.dumps(item, ensure_ascii=False) + "\n"


def general_set(held_out: Sequence[HeldOut]) -> str:
    """The lines of the general set, all tasks together."""
    return "".join(line for task in held_out for line in task.items)


def conversations(held_out: Sequence[HeldOut]) -> str:
    """The lines of the conversations, all tasks together."""
    return "".join(line for task in held_out for line in task.conversations)
