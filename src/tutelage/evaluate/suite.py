"""All that is measured of a model before and after training, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tutelage.distributed.collective_errors import collective_call, failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import cause_of
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import FIELD, JSON_FIELDS, SCORE, Graded, Outcomes, grade
from tutelage.evaluate.heldout import RowLoss, heldout_loss
from tutelage.generate.batch_check import SAID, Batching
from tutelage.generate.replies import answered_together, greedy_replies
from tutelage.generate.requests import EndedReply
from tutelage.model import loss
from tutelage.model.architecture import Attention, use_training_attention
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.render import Renderer
from tutelage.runs.divergence import DivergenceMeasure
from tutelage.runs.unchecked import Unchecked
from tutelage.types import Message, PackedSequence, Prompt, TokenIds


@dataclass(frozen=True, slots=True)
class EvalSuite:
    """What a model is asked: rows for its loss, task prompts and their checkers, general prompts with checks."""

    heldout_rows: tuple[PackedSequence, ...]
    task: tuple[Prompt, ...]
    general: tuple[GeneralItem, ...]
    max_new_tokens: int
    batch_prompts: int
    checkers: tuple[str, ...] = (JSON_FIELDS,)
    """Of the task's replies."""

    @property
    def replies(self) -> int:
        """How many replies the model will be asked for."""
        return len(self.task) + len(self.general)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of one model; None means that nothing was there to measure it on. Shares run from 0 to 1."""

    exact_match: float | None = None
    valid_json: float | None = None
    heldout_loss: float | None = None
    general: float | None = None
    fields: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    """By the name of each checker of the task's replies: a share, or a mean score."""


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The measures and the replies they were taken from; `failed` has the cause of each that could not be taken."""

    measures: Metrics
    task_replies: tuple[str, ...]
    general_replies: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    divergence: Mapping[str, DivergenceMeasure] = field(default_factory=dict)
    """From the base, by place; empty before training, and where it was not measured."""
    outcomes: Outcomes = field(default_factory=dict)
    unchecked: Mapping[str, Unchecked] = field(default_factory=dict)
    """Replies whose check failed, by measure; they count neither way."""


def run_suite(
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    *,
    done: Callable[[int], None] = lambda _: None,
    row_loss: RowLoss = loss.row_loss,
    attention: Attention = "documents",
    unsharded: Callable[[], AbstractContextManager[None]] = nullcontext,
    process_group: ProcessGroup = SINGLE,
    tolerate_failures: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> EvalResult:
    """Measure `model`; it attends as it trains again when this returns.

    Args:
        model: with or without an adapter.
        renderer: makes the served prompts of the general set.
        eval_suite: what to ask.
        done: called with the number of replies finished since the last call.
        row_loss: (model, row) -> (summed loss, trained tokens).
        attention: that of its training, see `model.architecture`.
        unsharded: opens a block in which the model generates without other processes.
        process_group: processes that share the questions; all get all answers.
        tolerate_failures: a measure that fails is left out, and named in `failed`; of several processes, by all.
        log: told where memory runs out, and less is computed at once, and where the model wants its prompts apart.
    """
    failed: dict[str, str] = {}
    tolerated = failures(process_group) if tolerate_failures else ()
    use_training_attention(model, attention)
    heldout, rows = None, eval_suite.heldout_rows
    try:
        if rows:
            heldout = heldout_loss(model, rows, row_loss=row_loss, process_group=process_group, log=log)
    except tolerated as error:
        failed["heldout_loss"] = cause_of(error)
    use_generation_attention(model)
    replies: dict[str, list[str]] = {"task": [], "general": []}
    prompts_by_set = _prompts_by_set(renderer, eval_suite)
    try:
        with unsharded() if prompts_by_set else nullcontext():
            batching = _together(model, renderer, eval_suite, log, process_group)
            how: dict[str, Any] = {"batching": batching, "done": done, "process_group": process_group, "log": log}
            for name, prompts in prompts_by_set.items():
                try:
                    ids = collective_call(process_group, prompts)
                    replies[name] = [reply.text for reply in _ask(model, renderer, ids, eval_suite, **how)]
                except tolerated as error:
                    failed[name] = cause_of(error)
    except tolerated as error:  # nothing can be asked
        failed |= dict.fromkeys(prompts_by_set, cause_of(error))
    use_training_attention(model, attention)
    graded = grade(
        () if "task" in failed else eval_suite.task,
        () if "general" in failed else eval_suite.general,
        replies["task"],
        replies["general"],
        checkers=eval_suite.checkers,
    )
    return EvalResult(
        _measures(graded, heldout),
        tuple(replies["task"]),
        tuple(replies["general"]),
        failed,
        outcomes=graded.outcomes,
        unchecked=graded.unchecked,
    )


def _prompts_by_set(renderer: Renderer, eval_suite: EvalSuite) -> dict[str, Callable[[], Sequence[TokenIds]]]:
    """What makes the prompts of each set that has any."""
    prompts: dict[str, Callable[[], Sequence[TokenIds]]] = {}
    if eval_suite.task:
        prompts["task"] = lambda: [prompt.ids for prompt in eval_suite.task]
    if eval_suite.general:
        prompts["general"] = lambda: _served(renderer, eval_suite)
    return prompts


def _measures(graded: Graded, heldout: float | None) -> Metrics:
    return Metrics(
        exact_match=graded.mean("exact_match"),
        valid_json=graded.mean("valid_json"),
        heldout_loss=heldout,
        general=graded.mean("general"),
        fields=graded.means(FIELD),
        scores=graded.means(SCORE),
    )


def _served(renderer: Renderer, eval_suite: EvalSuite) -> list[TokenIds]:
    return [renderer.serve([Message("user", item.prompt)]) for item in eval_suite.general]


def _together(
    model: Any, renderer: Renderer, eval_suite: EvalSuite, log: Callable[[str], None], process_group: ProcessGroup
) -> Batching:
    """Which prompts the model may answer together, which it is only asked where some would be."""
    batching = Batching("alone")
    trial_fits = True
    if eval_suite.replies > 1 < eval_suite.batch_prompts:
        try:
            batching = answered_together(model, renderer.tokenizer, process_group=process_group)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            trial_fits = False
        if not trial_fits:  # behind the handler, whose error holds on to what was computed
            release_memory()
            log("Memory ran out as a batch of prompts was tried: they are answered one at a time")
            return Batching("alone")
        if batching.kind in SAID:
            log(f"  {SAID[batching.kind]}")
    return batching


def _ask(
    model: Any,
    renderer: Renderer,
    prompts: Sequence[TokenIds],
    eval_suite: EvalSuite,
    *,
    batching: Batching,
    done: Callable[[int], None],
    process_group: ProcessGroup,
    log: Callable[[str], None],
) -> list[EndedReply]:
    """The replies; where memory runs out, of half as many prompts at once."""
    batch_prompts = min(eval_suite.batch_prompts, len(prompts))
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
                max_new_tokens=eval_suite.max_new_tokens,
                batch_prompts=batch_prompts,
                batching=batching,
                done=count,
                process_group=process_group,
            )
        except (RuntimeError, MemoryError) as error:
            if batch_prompts == 1 or not is_out_of_memory(error):
                raise
        # Not inside the except block: until it ends, the error keeps what the failed pass had allocated.
        release_memory()
        batch_prompts //= 2
        count(-finished)
        log(f"Memory ran out as prompts were answered: they are asked again, {batch_prompts} at once")
    return []
