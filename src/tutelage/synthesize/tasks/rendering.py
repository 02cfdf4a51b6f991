"""A row of a task becomes an instruction: which template and which form are drawn by what the row holds.

So the result is the same on every run, and a row keeps its words when rows are added, removed or put in another order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from tutelage.config.synthesis import TaskSettings
from tutelage.synthesize.tasks.phrases import phrases
from tutelage.synthesize.tasks.table import TaskRow, template_error
from tutelage.synthesize.tasks.task import Task, Template
from tutelage.synthesize.tasks.templates import OPTIONS, TaskTemplate, TemplateProblem
from tutelage.types import Address, Conversation, Drop, Message

POOL_ROWS = 2_000
"""Rows of a task that exemplars are drawn from; our choice: they are held in memory."""
T = TypeVar("T")
Counter = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """An instruction and the reply to it.

    Attributes:
        prompt: all that the user says.
        reply: what is learned.
        template: number of the template.
        form: zero_shot, few_shot, chain_of_thought or few_shot_chain_of_thought.
        exemplars: other rows in the prompt.
        lists_options: whether the prompt lists the choices; None where the task has none, or is turned around.
    """

    prompt: str
    reply: str
    template: int
    form: str
    exemplars: int = 0
    lists_options: bool | None = None


class Draw:
    """Random choices that hang on a seed, a task and a row alone. `Random.random` gives the same in every Python."""

    def __init__(self, seed: int, identity: bytes, purpose: str = "") -> None:
        self._random = Random(f"{seed} {identity.hex()} {purpose}")  # noqa: S311 - a choice of words is no secret

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""
        return int(self._random.random() * count)

    def of(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """A name, by its share."""
        place = self._random.random() * sum(weights.values())
        for name, weight in weights.items():
            place -= weight
            if place < 0:
                return name
        return next(name for name in reversed(list(weights)) if weights[name])


class Pool:
    """The rows of a task that exemplars are drawn from: those with the smallest identities, whatever their order."""

    def __init__(self, task: Task, rows: Iterable[TaskRow], size: int = POOL_ROWS) -> None:
        kept: dict[bytes, TaskRow] = {}
        for row in rows:
            kept[row.identity(task.name)] = row
            if len(kept) >= 2 * size:
                kept = _smallest(kept, size)
        self.rows = list(_smallest(kept, size).values())


def _smallest(rows: Mapping[bytes, TaskRow], size: int) -> dict[bytes, TaskRow]:
    return {identity: rows[identity] for identity in heapq.nsmallest(size, rows)}


class Renderer:
    """Makes instructions of the rows of a task.

    Args:
        task: whose rows they are.
        settings: forms and lengths.
        seed: of what is drawn.
        pool: rows that exemplars are drawn from; None where no prompt has any.
        count: counts tokens; None counts none, and nothing is too long.
    """

    def __init__(
        self, task: Task, settings: TaskSettings, seed: int, *, pool: Pool | None = None, count: Counter | None = None
    ) -> None:
        self._task, self._settings, self._seed, self._count = task, settings, seed, count
        self._pool = [] if pool is None else pool.rows
        shares = {name: getattr(settings, name) for name in ("zero_shot", "few_shot")}
        reasoning = {name: getattr(settings, name) for name in ("chain_of_thought", "few_shot_chain_of_thought")}
        if task.file.rationale is None or not task.straight:
            shares["zero_shot"] += reasoning["chain_of_thought"]
            shares["few_shot"] += reasoning["few_shot_chain_of_thought"]
            reasoning = {}
        self._shares: dict[str, float] = shares | reasoning

    def conversation(self, row: TaskRow) -> Conversation | Drop:
        """The instruction of a row, or why there is none.

        Raises:
            DataError: a template does not fit the row.
        """
        draw = Draw(self._seed, row.identity(self._task.name))
        form = draw.weighted(self._shares)
        template = draw.of(self._task.straight if form.endswith("chain_of_thought") else self._task.templates)
        listed = self._lists_options(row, template)
        rendered = self.rendered(row, template, form, draw, listed=listed)
        if isinstance(rendered, Drop):
            return rendered
        return conversation_of(self._task, row.address, rendered)

    def _lists_options(self, row: TaskRow, template: Template) -> bool | None:
        """Whether the prompt lists the choices; a draw of its own, so that no other one hangs on it."""
        if self._task.file.choices is None or template.turns_around:
            return None
        if OPTIONS in template.input.names or not self._settings.without_options:
            return True
        draw = Draw(self._seed, row.identity(self._task.name), "options")
        return (
            draw.weighted({"without": self._settings.without_options, "with": 1 - self._settings.without_options})
            == "with"
        )

    def rendered(
        self, row: TaskRow, template: Template, form: str, draw: Draw, *, listed: bool | None = True
    ) -> Rendered | Drop:
        """The row in one template and form; a few-shot prompt has as many exemplars as there is room for.

        With `listed` false neither the row's choices nor those of the exemplars stand in the prompt.
        """
        wording = self._wording(draw) if form.endswith("chain_of_thought") else None
        asked, reply = self._pair(row, template, wording, listed)
        if problem := self._unusable(row, asked, reply):
            return problem
        if not form.startswith("few_shot"):
            return Rendered(asked, reply, template.number, form, lists_options=listed)
        layout = draw.of(phrases().layouts)
        shown = [
            layout.exemplar.render({"input": other_asked, "target": other_reply})
            for other_asked, other_reply in self._exemplars(asked, template, wording, draw, listed=listed)
        ]
        while shown:
            prompt = layout.between.join([*shown, layout.question.render({"input": asked})])
            if self._count is None or self._count(prompt) <= self._settings.longest_input:
                return Rendered(prompt, reply, template.number, form, len(shown), listed)
            shown.pop()
        bare = "chain_of_thought" if wording is not None else "zero_shot"
        return Rendered(asked, reply, template.number, bare, lists_options=listed)

    def _exemplars(
        self, asked: str, template: Template, wording: _Reasoning | None, draw: Draw, *, listed: bool | None
    ) -> list[tuple[str, str]]:
        """Other rows in the same template. One that asks the same is none: its reply would be given away."""
        chosen: list[tuple[str, str]] = []
        left = list(range(len(self._pool)))
        while left and len(chosen) < self._settings.exemplars:
            row = self._pool[left.pop(draw.below(len(left)))]
            other_asked, other_reply = self._pair(row, template, wording, listed)
            if other_asked and other_reply and other_asked != asked:
                chosen.append((other_asked, other_reply))
        return chosen

    def _pair(
        self, row: TaskRow, template: Template, wording: _Reasoning | None, listed: bool | None
    ) -> tuple[str, str]:
        asked, reply = straight_pair(self._task, row, template, listed=listed is not False)
        if wording is None:
            return asked, reply
        rationale = row.values[self._task.file.rationale or ""]
        return f"{asked}\n{wording.request}", wording.reply.render({"rationale": rationale, "target": reply})

    def _wording(self, draw: Draw) -> _Reasoning:
        return _Reasoning(draw.of(phrases().reasoning_requests), draw.of(phrases().reasoned_replies))

    def _unusable(self, row: TaskRow, asked: str, reply: str) -> Drop | None:
        if not asked.strip() or not reply.strip():
            return Drop(row.address, "empty_text", "the template makes an empty " + ("reply" if asked else "prompt"))
        if self._count is None:
            return None
        most_asked, most_learned = self._settings.longest_input, self._settings.longest_target
        if (tokens := self._count(asked)) > most_asked:
            return Drop(row.address, "input_too_long", f"{tokens:,} tokens; at most {most_asked:,} are taken")
        if (tokens := self._count(reply)) > most_learned:
            return Drop(row.address, "target_too_long", f"{tokens:,} tokens; at most {most_learned:,} are taken")
        return None


@dataclass(frozen=True, slots=True)
class _Reasoning:
    request: str
    reply: TaskTemplate


def straight_pair(task: Task, row: TaskRow, template: Template, *, listed: bool = True) -> tuple[str, str]:
    """The instruction alone, with its options where they are listed, and the reply.

    Raises:
        DataError: the template does not fit the row.
    """
    place = f"templates {template.number}"
    try:
        values: dict[str, Any] = dict(row.values)
        choices = [] if template.turns_around else choices_of(task, row)
        if choices:
            values[OPTIONS] = options_block(choices)
        asked = template.input.render(values)
        if choices and listed and OPTIONS not in template.input.names:
            asked = f"{asked}\n\n{values[OPTIONS]}"
        place += ", target"
        return asked, template.target.render(row.values)
    except TemplateProblem as problem:
        raise template_error(task, row.address, place, problem) from problem


def choices_of(task: Task, row: TaskRow) -> list[str]:
    """The replies that a row leaves open; none where the task does not list them."""
    choices = task.file.choices
    if choices is None:
        return []
    listed = row.values[choices] if isinstance(choices, str) else choices
    return [str(choice) for choice in listed]


def options_block(choices: Sequence[str]) -> str:
    """The choices as they stand in a prompt. Source: Wei et al. 2022, section 2.3: a list behind the word OPTIONS."""
    return "OPTIONS:\n" + "\n".join(f"- {choice}" for choice in choices)


def conversation_of(task: Task, address: Address, rendered: Rendered) -> Conversation:
    """The conversation, which says of itself what it was made of."""
    metadata: dict[str, str | int | float | bool] = {
        "task": task.name,
        "cluster": task.file.cluster,
        "template": rendered.template,
        "form": rendered.form,
    }
    if rendered.exemplars:
        metadata["exemplars"] = rendered.exemplars
    if rendered.lists_options is False:
        metadata["options"] = False
    for name in ("license", "split"):
        if (value := getattr(task.file, name)) is not None:
            metadata[name] = value
    messages = (Message("user", rendered.prompt), Message("assistant", rendered.reply))
    return Conversation(messages, address, metadata=metadata)
