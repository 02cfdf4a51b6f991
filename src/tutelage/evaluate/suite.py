"""All that is measured of a model before and after training, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tutelage.distributed.collective_errors import agreed, failures
from tutelage.distributed.process_group import ALONE, Ranks
from tutelage.errors import cause_of
from tutelage.evaluate.batch_check import SAID, Together
from tutelage.evaluate.general import GeneralItem, score_general
from tutelage.evaluate.generate import answered_together, greedy_replies
from tutelage.evaluate.heldout import RowLoss, heldout_loss
from tutelage.evaluate.json_task import score_json
from tutelage.model import loss
from tutelage.model.architecture import Attention, attend_as_trained
from tutelage.model.attention.packed import attend_as_served
from tutelage.model.out_of_memory import is_out_of_memory, return_memory
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
    """The measures and the replies they were taken from; `failed` has the cause of each that could not be taken."""

    measures: Measures
    task_replies: tuple[str, ...]
    general_replies: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


def sit(
    model: Any,
    renderer: Renderer,
    exam: Exam,
    *,
    done: Callable[[int], None] = lambda _: None,
    row_loss: RowLoss = loss.row_loss,
    attention: Attention = "documents",
    whole: Callable[[], AbstractContextManager[None]] = nullcontext,
    ranks: Ranks = ALONE,
    excused: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Sitting:
    """Measure `model`; it attends as it trains again when this returns.

    Args:
        model: with or without an adapter.
        renderer: makes the served prompts of the general set.
        exam: what to ask.
        done: called with the number of replies finished since the last call.
        row_loss: (model, row) -> (summed loss, trained tokens).
        attention: that of its training, see `model.anatomy`.
        whole: opens a block in which the model generates without other processes.
        ranks: processes that share the questions; all get all answers.
        excused: a measure that fails is left out, and named in `failed`; of several processes, by all.
        say: told where memory runs out, and less is computed at once, and where the model wants its prompts apart.
    """
    failed: dict[str, str] = {}
    caught = failures(ranks) if excused else ()
    attend_as_trained(model, attention)
    heldout = None
    try:
        if exam.heldout_rows:
            heldout = heldout_loss(model, exam.heldout_rows, row_loss=row_loss, ranks=ranks, say=say)
    except caught as error:
        failed["heldout_loss"] = cause_of(error)
    attend_as_served(model)
    replies: dict[str, list[str]] = {"task": [], "general": []}
    asked: dict[str, Callable[[], Sequence[TokenIds]]] = {}
    if exam.task:
        asked["task"] = lambda: [one.ids for one in exam.task]
    if exam.general:
        asked["general"] = lambda: _served(renderer, exam)
    try:
        with whole() if asked else nullcontext():
            which = _together(model, renderer, exam, say, ranks)
            for name, prompts in asked.items():
                try:
                    ids = agreed(ranks, prompts)
                    replies[name] = _ask(model, renderer, ids, exam, which=which, done=done, ranks=ranks, say=say)
                except caught as error:
                    failed[name] = cause_of(error)
    except caught as error:  # nothing can be asked
        failed |= dict.fromkeys(asked, cause_of(error))
    attend_as_trained(model, attention)
    return Sitting(_measures(exam, replies, heldout, failed), tuple(replies["task"]), tuple(replies["general"]), failed)


def _measures(
    exam: Exam, replies: Mapping[str, Sequence[str]], heldout: float | None, failed: Mapping[str, str]
) -> Measures:
    scores = score_json(exam.task, replies["task"]) if exam.task and "task" not in failed else None
    return Measures(
        exact_match=scores.exact_match if scores else None,
        valid_json=scores.valid_json if scores else None,
        heldout_loss=heldout,
        general=score_general(exam.general, replies["general"]) if exam.general and "general" not in failed else None,
        fields=scores.fields if scores else {},
    )


def _served(renderer: Renderer, exam: Exam) -> list[TokenIds]:
    return [renderer.serve([Message("user", one.prompt)]) for one in exam.general]


def _together(model: Any, renderer: Renderer, exam: Exam, say: Callable[[str], None], ranks: Ranks) -> Together:
    """Which prompts the model may answer together, which it is only asked where some would be."""
    which: Together = "padded"
    trial_fits = True
    if exam.replies > 1 < exam.batch_prompts:
        try:
            which = answered_together(model, renderer.tokenizer, ranks=ranks)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            trial_fits = False
        if not trial_fits:  # behind the handler, whose error holds on to what was computed
            return_memory()
            say("Memory ran out as a batch of prompts was tried: they are answered one at a time")
            return "alone"
    if which in SAID:
        say(f"  {SAID[which]}")
    return which


def _ask(
    model: Any,
    renderer: Renderer,
    prompts: Sequence[TokenIds],
    exam: Exam,
    *,
    which: Together,
    done: Callable[[int], None],
    ranks: Ranks,
    say: Callable[[str], None],
) -> list[str]:
    """The replies; where memory runs out, of half as many prompts at once."""
    batch_prompts = min(exam.batch_prompts, len(prompts))
    finished = 0

    def count(replies: int) -> None:
        nonlocal finished
        finished += replies
        done(replies)

    while prompts:
        try:
            return greedy_replies(
                model,
                renderer.tokenizer,
                prompts,
                max_new_tokens=exam.max_new_tokens,
                batch_prompts=batch_prompts,
                which=which,
                done=count,
                ranks=ranks,
            )
        except (RuntimeError, MemoryError) as error:
            if batch_prompts == 1 or not is_out_of_memory(error):
                raise
        # Not inside the except block: until it ends, the error keeps what the failed pass had allocated.
        return_memory()
        batch_prompts //= 2
        count(-finished)
        say(f"Memory ran out as prompts were answered: they are asked again, {batch_prompts} at once")
    return []
