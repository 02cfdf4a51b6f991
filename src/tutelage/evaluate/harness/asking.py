"""Tasks of lm-eval asked of a model -> which items were right, paired by their order, and the figures it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from tutelage.distributed.collective_errors import failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import cause_of
from tutelage.evaluate.grading import LM_EVAL, Graded, Outcome
from tutelage.evaluate.harness.language_model import HarnessModel
from tutelage.evaluate.harness.tasks import HarnessTasks, as_the_harness
from tutelage.evaluate.suite import EvalResult, EvalSuite
from tutelage.model.architecture import Architecture, use_training_attention
from tutelage.model.out_of_memory import release_memory
from tutelage.render import Renderer

NO_FILTER = "none"
"""lm-eval's name of a reply that no filter changed."""


@dataclass(frozen=True, slots=True)
class HarnessResult:
    """What came of asking.

    Attributes:
        outcomes: by task and metric with `LM_EVAL` before it, of each item, where it has a number from 0 to 1 for each
            and more is better.
        numbers: by task and metric, what lm-eval computes of the others, such as a perplexity.
        items_sha256: of the items and prompts of each task: two models can be compared where these are the same.
    """

    outcomes: Mapping[str, list[Outcome]] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    items_sha256: Mapping[str, str] = field(default_factory=dict)


def ask_tasks(model: HarnessModel, tasks: HarnessTasks) -> HarnessResult:
    """Have lm-eval ask the model, grade its answers and compute its figures.

    Args:
        model: answers.
        tasks: what is asked.

    Raises:
        ConfigError, TemplateError: a task wants what the model or its template cannot give.
    """
    from lm_eval.evaluator import evaluate

    served = tasks.prompts == "served"
    with as_the_harness():
        found: Any = evaluate(
            lm=model,
            task_dict=tasks.loaded,
            limit=tasks.items,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=served,
            fewshot_as_multiturn=served,
        )
    return harness_result(found)


def harness_result(found: Mapping[str, Any]) -> HarnessResult:
    """What `lm_eval.evaluator.evaluate` returned, in our terms.

    Args:
        found: its `EvalResults`: of each task its items under `samples`, with a number by metric, a line for each
            filter, and its figures under `results`.
    """
    outcomes: dict[str, list[Outcome]] = {}
    numbers: dict[str, float] = {}
    items: dict[str, str] = {}
    for task, samples in found["samples"].items():
        ordered = sorted(samples, key=lambda sample: (str(sample["filter"]), sample["doc_id"]))
        hashes = [sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in ordered]
        items[task] = hashlib.sha256("".join(hashes).encode()).hexdigest()
        better = found["higher_is_better"].get(task, {})
        by_name: dict[tuple[str, str], list[Any]] = {}
        for sample in ordered:
            for metric in sample["metrics"]:
                by_name.setdefault((metric, str(sample["filter"])), []).append(sample[metric])
        for (metric, kind), values in by_name.items():
            name = f"{task} {metric}" + ("" if kind == NO_FILTER else f" ({kind})")
            if better.get(metric) and all(_is_share(value) for value in values):
                outcomes[LM_EVAL + name] = _as_outcomes(values)
            elif isinstance(number := found["results"][task].get(f"{metric},{kind}"), int | float):
                numbers[name] = float(number)
    return HarnessResult(outcomes, numbers, items)


def _is_share(value: Any) -> bool:
    return isinstance(value, bool) or (_is_number(value) and 0 <= value <= 1)


def _is_number(value: Any) -> bool:
    """Numpy's numbers, too, which tasks' own functions return."""
    return hasattr(value, "__float__") and not hasattr(value, "__len__")


def _as_outcomes(values: Sequence[Any]) -> list[Outcome]:
    numbers = [float(value) for value in values]
    return [bool(number) for number in numbers] if set(numbers) <= {0.0, 1.0} else list(numbers)


def with_tasks(
    eval_result: EvalResult,
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    architecture: Architecture,
    *,
    seed: int,
    unsharded: Callable[[], AbstractContextManager[None]] = nullcontext,
    process_group: ProcessGroup = SINGLE,
    tolerate_failures: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> EvalResult:
    """What was measured, and the tasks of lm-eval beside it.

    Args:
        eval_result: of `run_suite`.
        model: as there; it attends as it trains when this returns.
        renderer: writes served prompts.
        eval_suite: what to ask.
        architecture: what was tried on the model.
        seed: of replies that a task wants drawn.
        unsharded: opens a block in which the model computes without other processes.
        process_group: processes that share the requests; all get all numbers.
        tolerate_failures: as `run_suite`; `failed` then names "lm_eval".
        log: told what has no meaning here.
    """
    if (tasks := eval_suite.lm_eval) is None:
        return eval_result
    tolerated = failures(process_group) if tolerate_failures else ()
    how: dict[str, Any] = {"batch_prompts": eval_suite.batch_prompts, "seed": seed, "process_group": process_group}
    asked = HarnessModel(model, renderer, architecture, log=log, **how)
    cause = None
    try:
        with unsharded():
            found = ask_tasks(asked, tasks)
    except tolerated as error:
        cause = cause_of(error)
    use_training_attention(model, architecture.attention)
    if cause is not None:
        release_memory()  # behind the handler, whose error holds on to what was computed
        return replace(eval_result, failed={**eval_result.failed, "lm_eval": cause})
    shares = Graded(dict(found.outcomes), {}).means(LM_EVAL)
    return replace(
        eval_result,
        measures=replace(eval_result.measures, lm_eval=shares, lm_eval_numbers=dict(found.numbers)),
        outcomes={**eval_result.outcomes, **found.outcomes},
        lm_eval_items=found.items_sha256,
    )
