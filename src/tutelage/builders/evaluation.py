"""What a run's models are asked, and the same questions again for a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import Prepared, prepare, prepared_cache
from tutelage.builders.measured import Measured
from tutelage.builders.measuring import RepliesOf, kept_while_evaluating, not_kept
from tutelage.builders.named_adapters import NamedAdapter
from tutelage.builders.positions import positions_of
from tutelage.builders.resolved_run import ResolvedRun, resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.builders.trained_model import TrainedModel, open_trained_model
from tutelage.builders.vllm_replies import replies_by_vllm, require_answerable
from tutelage.config import Settings
from tutelage.distributed.strategy import Strategy
from tutelage.errors import CheckpointError
from tutelage.evaluate.harness.asking import with_tasks
from tutelage.evaluate.harness.tasks import HarnessTasks, load_tasks
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.likelihoods import with_likelihoods
from tutelage.evaluate.saved_results import read_eval_result
from tutelage.evaluate.suite import NONE_GIVEN, EvalSuite, Metrics, run_suite
from tutelage.evaluate.uncertainty import item_outcomes
from tutelage.generate.requests import EndedReply
from tutelage.model.architecture import Architecture, architecture_of
from tutelage.model.loss import row_loss
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack import pack_rows
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import read_inputs
from tutelage.runs.unchecked import unchecked_notes
from tutelage.types import PackedSequence


def lm_eval_of(settings: Settings, log: Callable[[str], None]) -> HarnessTasks | None:
    """The tasks of lm-eval that settings name, to be made ready before a model is loaded.

    Raises:
        TutelageError: of the kind that fits, see `evaluate.harness.tasks.load_tasks`.
    """
    asked = settings.evaluate
    return load_tasks(asked.lm_eval, prompts=asked.lm_eval_prompts, items=asked.lm_eval_items, log=log)


def eval_suite_for(
    resolved: ResolvedRun, prepared: Prepared, *, architecture: Architecture, lm_eval: HarnessTasks | None = None
) -> EvalSuite:
    """The held-out rows, task prompts and general prompts of a run.

    Args:
        resolved: the run's.
        prepared: its data.
        architecture: what was tried on the model, which says what documents may share.
        lm_eval: tasks of lm-eval, of `lm_eval_of`.
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
        checkers=prepared.checkers,
        choices=prepared.choices,
        texts=prepared.texts,
        lm_eval=lm_eval,
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


def evaluate_adapters(run: str, adapters: Sequence[NamedAdapter], *, screen: Screen) -> dict[str, Measured]:
    """Measure a run's base, what it trained, and other adapters of the same base, which is loaded once.

    Raises:
        SourceNotFoundError: not a run, or not finished.
        ConfigError: an adapter that cannot be beside the run's.
        DataError: an adapter of another base.
    """
    lm_eval = lm_eval_of(run_files.read_settings(run_files.existing_run_folder(run)), screen.log)
    trained_model = open_trained_model(run, tuned=True, base=False, adapters=adapters, log=screen.log)
    with kept_while_evaluating(Path(run), trained_model, adapters=adapters, log=screen.log) as replies:
        return _examine(trained_model, trained_model.names, screen, replies, lm_eval)


def evaluate_opened(trained_model: TrainedModel, *, name: str, screen: Screen) -> Metrics:
    """Measure one of a run's models, which are open already, on the files its settings name."""
    lm_eval = lm_eval_of(trained_model.settings, screen.log)
    return _examine(trained_model, (name,), screen, lm_eval=lm_eval)[name].metrics


def evaluate_beside_saved(
    folder: Path, *, base: bool, screen: Screen, by_vllm: bool = False
) -> tuple[Measured, Measured | None]:
    """Measure a run's model again, and say what the run measured of the other one, on the same items.

    Args:
        folder: the run's.
        base: measure the model that it started from, beside what it trained; False: the other way round.
        screen: told what happens.
        by_vllm: have vLLM reply, before our own model is loaded for all else.

    Returns:
        What was measured now, and what was saved; None where the data changed since, or nothing is there.

    Raises:
        SourceNotFoundError: the run is not finished.
        CheckpointError: its settings cannot be read.
    """
    settings = run_files.read_settings(folder)
    given = NONE_GIVEN
    if by_vllm:
        require_answerable(folder, settings)
    lm_eval = lm_eval_of(settings, screen.log)
    if by_vllm:
        prepared = prepared_again(settings, start_folder(settings.model, log=screen.log), log=screen.log)
        given = replies_by_vllm(folder, settings, prepared, base=base, screen=screen)
    has_adapter = settings.model.method != "full"  # one object is then both models
    trained_model = open_trained_model(
        str(folder), tuned=has_adapter or not base, base=base and not has_adapter, log=screen.log
    )
    prepared = _prepared(trained_model, screen)
    name = "base" if base else "tuned"
    with kept_while_evaluating(folder, trained_model, log=screen.log) as replies:
        how: dict[str, Any] = {"replies": replies, "lm_eval": lm_eval, "given": given}
        measured = _measured(trained_model, (name,), settings, prepared, screen, **how)[name]
    if not _same_data(folder, prepared):
        return measured, None
    saved = read_eval_result(folder / (run_files.AFTER if base else run_files.BEFORE), log=lambda _: None)
    if saved is None:
        return measured, None
    outcomes = item_outcomes(prepared.task, prepared.general, saved, checkers=prepared.checkers)
    return measured, replace(Measured.of(saved, prepared.general, prepared.choices), outcomes=outcomes)


def _same_data(folder: Path, prepared: Prepared) -> bool:
    """Whether the run recorded the same files; their names may differ by where it is evaluated from."""
    try:
        recorded = read_inputs(folder)["data_sha256"]
    except CheckpointError:
        return False
    return sorted(recorded.values()) == sorted(prepared.data_sha256.values())


def evaluate_rows(
    trained_model: TrainedModel,
    settings: Settings,
    *,
    name: str,
    screen: Screen,
    measures_loss: bool = True,
    lm_eval: HarnessTasks | None = None,
) -> Measured:
    """Measure an open model on other data than its run's.

    Args:
        trained_model: the models.
        settings: `data.train` are the rows to measure loss on; with them the task and the general set.
        name: which of the models.
        screen: told what happens.
        measures_loss: False leaves the loss out.
        lm_eval: tasks of lm-eval to ask as well.

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
    prepared = prepare(positions.within(asked), folder, cache=prepared_cache(), log=screen.log)
    positions.require_room(asked, prepared)
    if measures_loss:
        prepared = replace(prepared, validation=prepared.train)
    return _measured(trained_model, (name,), asked, prepared, screen, lm_eval=lm_eval)[name]


def _examine(
    trained_model: TrainedModel,
    names: Sequence[str],
    screen: Screen,
    replies: RepliesOf = not_kept,
    lm_eval: HarnessTasks | None = None,
) -> dict[str, Measured]:
    settings, prepared = trained_model.settings, _prepared(trained_model, screen)
    return _measured(trained_model, names, settings, prepared, screen, replies=replies, lm_eval=lm_eval)


def _prepared(trained_model: TrainedModel, screen: Screen) -> Prepared:
    return prepared_again(trained_model.settings, trained_model.renderer.tokenizer.folder, log=screen.log)


def prepared_again(settings: Settings, start: Path, *, log: Callable[[str], None]) -> Prepared:
    """The data of a finished run, from the files its settings name.

    Args:
        settings: of the run.
        start: the folder of the model that it started from.
        log: told when data was prepared before.

    Raises:
        DataError: no row is left, or a prompt leaves no room for its reply.
    """
    positions = positions_of(settings, start)
    prepared = prepare(positions.within(settings), start, cache=prepared_cache(), log=log)
    positions.require_room(settings, prepared)
    return prepared


def _measured(
    trained_model: TrainedModel,
    names: Sequence[str],
    settings: Settings,
    prepared: Prepared,
    screen: Screen,
    *,
    replies: RepliesOf = not_kept,
    lm_eval: HarnessTasks | None = None,
    given: Mapping[bytes, EndedReply] = NONE_GIVEN,
) -> dict[str, Measured]:
    resolved = resolve(settings)
    with trained_model.as_named(names[0]) as model:
        architecture = architecture_of(model, longest_rows(resolved, prepared))
        eval_suite = eval_suite_for(resolved, prepared, architecture=architecture, lm_eval=lm_eval)
    measured = {}
    for name in names:
        title = f"Asking {name}" if len(names) > 1 else "Asking"
        with (
            closing(replies(name)) as kept,
            screen.counting(f"{title} {eval_suite.replies} prompts", eval_suite.replies) as done,
            trained_model.as_named(name) as model,
        ):
            eval_result = run_suite(
                model,
                trained_model.renderer,
                eval_suite,
                done=done,
                log=screen.log,
                row_loss=partial(row_loss, architecture=architecture),
                attention=architecture.attention,
                kept=kept,
                given=given,
            )
            asked: Any = (model, trained_model.renderer, eval_suite, architecture)
            eval_result = with_likelihoods(eval_result, *asked)
            eval_result = with_tasks(eval_result, *asked, seed=settings.seed, log=screen.log)
        for note in unchecked_notes({title: eval_result.unchecked}):
            screen.log(note)
        measured[name] = Measured.of(eval_result, prepared.general, prepared.choices)
    return measured
