"""What is measured without asking for a reply: choices, general texts, and the references of the general set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tutelage.distributed.collective_errors import collective_call, failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import cause_of
from tutelage.evaluate.capabilities import CAPABILITY
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.general_text import GeneralText
from tutelage.evaluate.grading import Graded
from tutelage.evaluate.losses import by_source
from tutelage.evaluate.multiple_choice import score_choices, with_choices
from tutelage.evaluate.suite import EvalResult, EvalSuite
from tutelage.generate.scoring import GivenText, score
from tutelage.model.architecture import Architecture
from tutelage.model.out_of_memory import release_memory
from tutelage.render import Renderer
from tutelage.runs.losses import DocumentLosses
from tutelage.types import Address, Conversation, Drop, Message


def with_likelihoods(
    eval_result: EvalResult,
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    architecture: Architecture,
    *,
    unsharded: Callable[[], AbstractContextManager[None]] = nullcontext,
    process_group: ProcessGroup = SINGLE,
    tolerate_failures: bool = False,
) -> EvalResult:
    """What was measured, and the likelihoods that the suite asks for; the choices count in the general set's share.

    Args:
        eval_result: of `run_suite`.
        model: as there; it attends as it trains when this returns.
        renderer: writes choices and references as replies.
        eval_suite: what to ask.
        architecture: what was tried on the model.
        unsharded: opens a block in which the model computes without other processes.
        process_group: processes that share the work; all get all numbers.
        tolerate_failures: as `run_suite`; `failed` then names "choices", "general_text" or "references".
    """
    work = _work(model, renderer, eval_suite, architecture, process_group)
    if not work:
        return eval_result
    tolerated = failures(process_group) if tolerate_failures else ()
    failed: dict[str, str] = {}
    found: dict[str, Any] = {}
    try:
        with unsharded():
            for name, measure in work.items():
                try:
                    found[name] = measure()
                except tolerated as error:
                    failed[name] = cause_of(error)
    except tolerated as error:  # nothing can be computed
        failed |= dict.fromkeys(work, cause_of(error))
    if failed:
        release_memory()  # behind the handlers, whose errors hold on to what was computed
    return _with_choices(
        replace(
            eval_result,
            choices=tuple(found.pop("choices", ())),
            losses={**eval_result.losses, **found},
            failed={**eval_result.failed, **failed},
        ),
        eval_suite,
    )


def _work(
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    architecture: Architecture,
    process_group: ProcessGroup,
) -> dict[str, Callable[[], Any]]:
    """What measures each thing that the suite asks for."""
    work: dict[str, Callable[[], Any]] = {}
    group: dict[str, Any] = {"process_group": process_group}
    if eval_suite.choices:
        work["choices"] = partial(score_choices, model, renderer, eval_suite.choices, architecture, **group)
    if eval_suite.texts:
        work["general_text"] = partial(text_losses, model, eval_suite.texts, architecture, **group)
    if any(item.reference for item in eval_suite.general):
        work["references"] = partial(reference_losses, model, renderer, eval_suite.general, architecture, **group)
    return work


def _with_choices(eval_result: EvalResult, eval_suite: EvalSuite) -> EvalResult:
    """The general set with the choices in it; without outcomes where one of its parts could not be measured."""
    if not eval_suite.choices:
        return eval_result
    outcomes = with_choices(eval_result.outcomes, eval_suite.choices, eval_result.choices, asked=eval_suite.general)
    graded = Graded(outcomes, {})
    counted = replace(eval_result.measures, general=graded.mean("general"), capabilities=graded.means(CAPABILITY))
    return replace(eval_result, measures=counted, outcomes=outcomes)


def text_losses(
    model: Any,
    texts: Sequence[GeneralText],
    architecture: Architecture,
    *,
    process_group: ProcessGroup = SINGLE,
) -> dict[str, DocumentLosses]:
    """The loss of each general text behind its first token, by source."""
    given = [GivenText(text.ids[:1], text.ids[1:]) for text in texts]
    sizes = {text.address: text.bytes for text in texts}
    return _losses(model, [text.address for text in texts], given, architecture, process_group, sizes=sizes)


def reference_losses(
    model: Any,
    renderer: Renderer,
    items: Sequence[GeneralItem],
    architecture: Architecture,
    *,
    process_group: ProcessGroup = SINGLE,
) -> dict[str, DocumentLosses]:
    """The loss of the reply that items of the general set refer to, its end included, by source.

    A reference that the template cannot write as a reply has none.
    """
    asking = replace(renderer, train_on="replies", turns="last", most_tokens=None, too_long="drop")
    referring = [(item, item.reference) for item in items if item.reference]
    outcomes = asking.prove(
        [
            Conversation((Message("user", item.prompt), Message("assistant", reference)), item.address)
            for item, reference in referring
        ]
    )
    given: list[GivenText] = []
    addresses: list[Address] = []
    for outcome in outcomes:
        if isinstance(outcome, Drop):
            continue
        example = outcome.examples[-1]
        turn = example.turns[-1]
        given.append(GivenText(example.ids[: turn.prompt_end], example.ids[turn.prompt_end : turn.reply_end]))
        addresses.append(example.address)
    return _losses(model, addresses, given, architecture, process_group)


def _losses(
    model: Any,
    addresses: Sequence[Address],
    given: Sequence[GivenText],
    architecture: Architecture,
    process_group: ProcessGroup,
    *,
    sizes: dict[Address, int] | None = None,
) -> dict[str, DocumentLosses]:
    own = range(process_group.rank, len(given), process_group.size)
    scores = collective_call(process_group, partial(score, model, [given[place] for place in own], architecture))
    documents: dict[Address, tuple[float, int]] = {}
    for rank_documents in process_group.gather(
        {
            addresses[place]: (-float(np.sum(found.logprobs)), len(found.logprobs))
            for place, found in zip(own, scores, strict=True)
        }
    ):
        documents |= rank_documents
    return by_source(documents, sizes or {})
