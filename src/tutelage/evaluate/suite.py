"""All that is measured of a model before and after training, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tutelage.distributed.collective_errors import collective_call, failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import cause_of
from tutelage.evaluate.asking import Asking, Served, ask, ask_again
from tutelage.evaluate.capabilities import CAPABILITY
from tutelage.evaluate.choice_items import ChoiceItem
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.general_text import GeneralText
from tutelage.evaluate.grading import FIELD, JSON_FIELDS, SCORE, Graded, Outcomes, grade
from tutelage.evaluate.harness.tasks import HarnessTasks
from tutelage.evaluate.health import health_figures, health_outcomes
from tutelage.evaluate.heldout import HeldoutLoss, RowLoss, heldout_by_document
from tutelage.evaluate.losses import by_source
from tutelage.evaluate.reply_log import NOT_KEPT, ReplyLog
from tutelage.generate.batch_check import SAID, Batching
from tutelage.generate.replies import answered_together
from tutelage.generate.requests import End, EndedReply
from tutelage.model import loss
from tutelage.model.architecture import Attention, use_training_attention
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.render import Renderer
from tutelage.runs.divergence import DivergenceMeasure
from tutelage.runs.losses import Losses
from tutelage.runs.multiple_choice import ChoiceScores
from tutelage.runs.unchecked import Unchecked
from tutelage.types import Message, PackedSequence, Prompt

NONE_GIVEN: Mapping[bytes, EndedReply] = MappingProxyType({})


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
    noise_prompts: int = 0
    """So many of the prompts are asked again in other batches, where any are answered together."""
    choices: tuple[ChoiceItem, ...] = ()
    texts: tuple[GeneralText, ...] = ()
    lm_eval: HarnessTasks | None = None
    """Tasks of lm-eval, which `evaluate.harness.asking` asks."""

    @property
    def replies(self) -> int:
        """How many replies the model will be asked for, those to the same prompts again left out."""
        return len(self.task) + len(self.general)

    @property
    def asked_again(self) -> int:
        """How many of the prompts are asked again."""
        return min(self.noise_prompts, self.replies)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of one model; None means that nothing was there to measure it on. Shares run from 0 to 1."""

    exact_match: float | None = None
    valid_json: float | None = None
    heldout_loss: float | None = None
    general: float | None = None
    fields: dict[str, float] = field(default_factory=dict)
    capabilities: dict[str, float] = field(default_factory=dict)
    """By the topics of the general set, where it has at least two with 10 items or more."""
    scores: dict[str, float] = field(default_factory=dict)
    """By the name of each checker of the task's replies: a share, or a mean score."""
    health: dict[str, dict[str, float]] = field(default_factory=dict)
    """By set, what `evaluate.health` says of its replies."""
    lm_eval: dict[str, float] = field(default_factory=dict)
    """By task and metric of lm-eval: a share of items, or a mean score."""
    lm_eval_numbers: dict[str, float] = field(default_factory=dict)
    """By task and metric of lm-eval, what is no share, such as a perplexity."""


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
    ends: Mapping[str, tuple[End, ...]] = field(default_factory=dict)
    """Of the replies, by set, in their order; empty where they are not known, as in files of older versions."""
    asked_again: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Replies to the same prompts in other batches, by set and place; empty where none was asked again."""
    losses: Losses = field(default_factory=dict)
    choices: tuple[ChoiceScores, ...] = ()
    """Of the questions with choices; these and the losses but "heldout" are measured by `evaluate.likelihoods`."""
    lm_eval_items: Mapping[str, str] = field(default_factory=dict)
    """By task of lm-eval, the hash of its items and prompts."""


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
    kept: ReplyLog = NOT_KEPT,
    given: Mapping[bytes, EndedReply] = NONE_GIVEN,
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
        kept: has replies of this model that need not be asked for, and takes all others as they end.
        given: replies of this model by another engine, by the bytes of the prompts' ids.
    """
    failed: dict[str, str] = {}
    tolerated = failures(process_group) if tolerate_failures else ()
    use_training_attention(model, attention)
    heldout, rows = HeldoutLoss(), eval_suite.heldout_rows
    try:
        if rows:
            heldout = heldout_by_document(model, rows, row_loss=row_loss, process_group=process_group, log=log)
    except tolerated as error:
        failed["heldout_loss"] = cause_of(error)
    use_generation_attention(model)
    asked = _Asked()
    prompts_by_set = _prompts_by_set(renderer, eval_suite)
    try:
        with unsharded() if prompts_by_set else nullcontext():
            batching = Batching("alone")
            if not given:
                batching = _together(model, renderer, eval_suite, log, process_group)
            longest, together = eval_suite.max_new_tokens, eval_suite.batch_prompts
            how = Asking(longest, together, batching, done, log, process_group, replies=kept, given=given)
            asked.fill(model, renderer, prompts_by_set, how, tolerated, most_again=eval_suite.asked_again)
    except tolerated as error:  # nothing can be asked
        asked.failed |= dict.fromkeys(prompts_by_set, cause_of(error))
    use_training_attention(model, attention)
    return _graded(eval_suite, asked, heldout, failed | asked.failed, process_group)


def _graded(
    eval_suite: EvalSuite,
    asked: _Asked,
    heldout: HeldoutLoss,
    failed: Mapping[str, str],
    process_group: ProcessGroup,
) -> EvalResult:
    """What replies and losses come to; the main process checks the replies, once for all."""
    texts = {name: tuple(reply.text for reply in asked.replies.get(name, ())) for name in ("task", "general")}

    def checked() -> Graded | None:
        if not process_group.is_main:
            return None
        return grade(
            () if "task" in failed else eval_suite.task,
            () if "general" in failed else eval_suite.general,
            texts["task"],
            texts["general"],
            checkers=eval_suite.checkers,
        )

    graded = process_group.gather(collective_call(process_group, checked))[0]
    assert graded is not None, "the first process is the main one"
    ends = {name: tuple((reply.tokens, reply.ended_by) for reply in replies) for name, replies in asked.replies.items()}
    health = health_outcomes(eval_suite.task, eval_suite.general, texts, ends)
    return EvalResult(
        replace(_measures(graded, heldout.mean), health=health_figures(texts, ends, health)),
        texts["task"],
        texts["general"],
        failed,
        outcomes=graded.outcomes | health,
        unchecked=graded.unchecked,
        ends=ends,
        asked_again=asked.again,
        losses={"heldout": by_source(heldout.documents)} if heldout.documents else {},
    )


@dataclass(slots=True)
class _Asked:
    """What came of asking: replies and failures by set, and replies to the same prompts again."""

    replies: dict[str, list[EndedReply]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    again: dict[str, dict[int, str]] = field(default_factory=dict)

    def fill(
        self,
        model: Any,
        renderer: Renderer,
        prompts: Mapping[str, Served],
        how: Asking,
        tolerated: tuple[type[Exception], ...],
        *,
        most_again: int,
    ) -> None:
        """Ask each set; where all could be asked, some prompts again."""
        for name, served in prompts.items():
            try:
                self.replies[name] = ask(model, renderer.tokenizer, served, how)
            except tolerated as error:
                self.failed[name] = cause_of(error)
        if self.failed or not most_again:
            return
        try:
            self.again = ask_again(model, renderer.tokenizer, prompts, how, most=most_again)
        except tolerated as error:
            how.log(f"  note: the noise floor is not measured ({cause_of(error)})")


def _prompts_by_set(renderer: Renderer, eval_suite: EvalSuite) -> dict[str, Served]:
    """The prompts of each set that has any."""
    task, general = eval_suite.task, eval_suite.general
    prompts: dict[str, Served] = {}
    if task:
        prompts["task"] = Served(len(task), lambda place: task[place].ids)
    if general:
        prompts["general"] = Served(
            len(general), lambda place: renderer.serve([Message("user", general[place].prompt)])
        )
    return prompts


def _measures(graded: Graded, heldout: float | None) -> Metrics:
    return Metrics(
        exact_match=graded.mean("exact_match"),
        valid_json=graded.mean("valid_json"),
        heldout_loss=heldout,
        general=graded.mean("general"),
        fields=graded.means(FIELD),
        capabilities=graded.means(CAPABILITY),
        scores=graded.means(SCORE),
    )


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
