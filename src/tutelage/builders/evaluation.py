"""What a run's models are asked, and the same questions again for a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from tutelage.builders.dataset import Prepared, prepare, prepared_cache
from tutelage.builders.named_adapters import NamedAdapter
from tutelage.builders.positions import positions_of
from tutelage.builders.resolved_run import ResolvedRun, resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.builders.trained_model import TrainedModel, open_trained_model
from tutelage.config import Settings
from tutelage.distributed.strategy import Strategy
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.suite import EvalResult, EvalSuite, Metrics, run_suite
from tutelage.model.architecture import Architecture, architecture_of
from tutelage.model.loss import row_loss
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack import pack_rows
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.types import PackedSequence


def eval_suite_for(resolved: ResolvedRun, prepared: Prepared, *, architecture: Architecture) -> EvalSuite:
    """The held-out rows, task prompts and general prompts of a run.

    Args:
        resolved: the run's.
        prepared: its data.
        architecture: what was tried on the model, which says what documents may share.
    """
    evaluate_settings = resolved.settings.evaluate
    return EvalSuite(
        heldout_rows=pack_rows(
            prepared.validation,
            row_tokens=resolved.row_tokens,
            share_prefixes=resolved.share_prefixes and architecture.shares_prefixes,
            documents_isolated=architecture.documents_isolated,
        ),
        task=prepared.task,
        general=prepared.general,
        max_new_tokens=evaluate_settings.max_new_tokens,
        batch_prompts=evaluate_settings.batch_prompts,
    )


def heldout_loss_measure(
    strategy: Strategy,
    model: Any,
    optimizer: MasterWeights,
    rows: Sequence[PackedSequence],
    *,
    log: Callable[[str], None],
) -> Callable[[], float]:
    """A function that measures the loss on `rows` of what is kept so far."""

    def measure() -> float:
        with optimizer.using_average():
            return heldout_loss(model, rows, row_loss=strategy.row_loss, process_group=strategy.process_group, log=log)

    return measure


def run_suite_on_ranks(
    strategy: Strategy,
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    *,
    done: Callable[[int], None],
    log: Callable[[str], None],
) -> EvalResult:
    """Measure the model; every process gets all that is found. What fails is left out, and named in the sitting."""
    return run_suite(
        model,
        renderer,
        eval_suite,
        done=lambda replies: done(replies * strategy.process_group.size),
        row_loss=strategy.row_loss,
        attention=strategy.architecture.attention,
        unsharded=nullcontext if strategy.fsdp_root is None else strategy.fsdp_root.unsharded,
        process_group=strategy.process_group,
        tolerate_failures=True,
        log=log,
    )


def evaluate_adapters(run: str, adapters: Sequence[NamedAdapter], *, screen: Screen) -> dict[str, Metrics]:
    """Measure a run's base, what it trained, and other adapters of the same base, which is loaded once.

    Raises:
        SourceNotFoundError: not a run, or not finished.
        ConfigError: an adapter that cannot be beside the run's.
        DataError: an adapter of another base.
    """
    trained_model = open_trained_model(run, tuned=True, base=False, adapters=adapters, log=screen.log)
    return _examine(trained_model, trained_model.names, screen)


def evaluate_opened(trained_model: TrainedModel, *, name: str, screen: Screen) -> Metrics:
    """Measure one of a run's models, which are open already, on the files its settings name."""
    return _examine(trained_model, (name,), screen)[name]


def evaluate_rows(
    trained_model: TrainedModel, settings: Settings, *, name: str, screen: Screen, measures_loss: bool = True
) -> Metrics:
    """Measure an open model on other data than its run's.

    Args:
        trained_model: the models.
        settings: `data.train` are the rows to measure loss on; with them the task and the general set.
        name: which of the models.
        screen: told what happens.
        measures_loss: False leaves the loss out.

    Raises:
        DataError: no row is left, or a prompt leaves no room for its reply.
    """
    asked = settings.model_copy(
        update={
            "model": trained_model.settings.model,
            "render": trained_model.settings.render,
            "prompt": trained_model.settings.prompt,
        }
    )
    folder = trained_model.renderer.tokenizer.folder
    positions = positions_of(asked, folder)
    prepared = prepare(positions.within(asked), folder, cache=prepared_cache())
    positions.require_room(asked, prepared)
    if measures_loss:
        prepared = replace(prepared, validation=prepared.train)
    return _measured(trained_model, (name,), asked, prepared, screen)[name]


def _examine(trained_model: TrainedModel, names: Sequence[str], screen: Screen) -> dict[str, Metrics]:
    folder = trained_model.renderer.tokenizer.folder
    positions = positions_of(trained_model.settings, folder)
    prepared = prepare(positions.within(trained_model.settings), folder, cache=prepared_cache())
    positions.require_room(trained_model.settings, prepared)
    return _measured(trained_model, names, trained_model.settings, prepared, screen)


def _measured(
    trained_model: TrainedModel, names: Sequence[str], settings: Settings, prepared: Prepared, screen: Screen
) -> dict[str, Metrics]:
    resolved = resolve(settings)
    with trained_model.as_named(names[0]) as model:
        architecture = architecture_of(model, longest_rows(resolved, prepared))
        eval_suite = eval_suite_for(resolved, prepared, architecture=architecture)
    metrics_by_name = {}
    for name in names:
        title = f"Asking {name}" if len(names) > 1 else "Asking"
        with (
            screen.counting(f"{title} {eval_suite.replies} prompts", eval_suite.replies) as done,
            trained_model.as_named(name) as model,
        ):
            metrics_by_name[name] = run_suite(
                model,
                trained_model.renderer,
                eval_suite,
                done=done,
                log=screen.log,
                row_loss=partial(row_loss, architecture=architecture),
                attention=architecture.attention,
            ).measures
    return metrics_by_name
