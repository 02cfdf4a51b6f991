"""All that is measured of a model before and after training, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.evaluate.general import GeneralItem, score_general
from tutelage.evaluate.generate import greedy_replies
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.json_task import score_json
from tutelage.model.attention import attend_as_served, isolate_documents
from tutelage.render import Renderer
from tutelage.types import Message, Prompt, Row, TokenIds


@dataclass(frozen=True, slots=True)
class Exam:
    """What a model is asked: rows for its loss, task prompts with JSON answers, general prompts with checks."""

    heldout_rows: tuple[Row, ...]
    task: tuple[Prompt, ...]
    general: tuple[GeneralItem, ...]
    max_new_tokens: int
    batch_prompts: int

    @property
    def replies(self) -> int:
        """How many replies the model will be asked for."""
        return len(self.task) + len(self.general)


@dataclass(frozen=True, slots=True)
class Measures:
    """Numbers of one model; None means that nothing was there to measure it on. Shares run from 0 to 1."""

    exact_match: float | None = None
    valid_json: float | None = None
    heldout_loss: float | None = None
    general: float | None = None
    fields: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sitting:
    """The measures and the replies that they were taken from."""

    measures: Measures
    task_replies: tuple[str, ...]
    general_replies: tuple[str, ...]


def sit(model: Any, renderer: Renderer, exam: Exam, *, done: Callable[[int], None] = lambda _: None) -> Sitting:
    """Measure `model`; it attends inside documents again when this returns.

    Args:
        model: with or without an adapter.
        renderer: makes the served prompts of the general set.
        exam: what to ask.
        done: called with the number of replies finished since the last call.
    """
    isolate_documents(model)
    loss = heldout_loss(model, exam.heldout_rows) if exam.heldout_rows else None
    attend_as_served(model)
    task_replies = _ask(model, renderer, [one.ids for one in exam.task], exam, done)
    served = [renderer.serve([Message("user", one.prompt)]) for one in exam.general]
    general_replies = _ask(model, renderer, served, exam, done)
    isolate_documents(model)
    scores = score_json(exam.task, task_replies) if exam.task else None
    measures = Measures(
        exact_match=scores.exact_match if scores else None,
        valid_json=scores.valid_json if scores else None,
        heldout_loss=loss,
        general=score_general(exam.general, general_replies) if exam.general else None,
        fields=scores.fields if scores else {},
    )
    return Sitting(measures, tuple(task_replies), tuple(general_replies))


def _ask(
    model: Any, renderer: Renderer, prompts: Sequence[TokenIds], exam: Exam, done: Callable[[int], None]
) -> list[str]:
    if not prompts:
        return []
    return greedy_replies(
        model,
        renderer.tokenizer,
        prompts,
        max_new_tokens=exam.max_new_tokens,
        batch_prompts=exam.batch_prompts,
        done=done,
    )
