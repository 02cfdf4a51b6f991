"""Settings -> a finished run. The only place that reads settings; everything it calls takes named arguments."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tutelage import config, report
from tutelage.builders.base_divergence import base_replies_for, divergence_of
from tutelage.builders.base_model import continued, with_adapters_own
from tutelage.builders.calibration_data import calibration_for
from tutelage.builders.dataset import Prepared
from tutelage.builders.evaluation import eval_suite_for, lm_eval_of
from tutelage.builders.held_to_base import held_to_base
from tutelage.builders.measuring import forget_replies, run_suite_on_ranks
from tutelage.builders.memory_plan import decide_recompute
from tutelage.builders.method import loaded_base
from tutelage.builders.model import TrainState, train_state_for
from tutelage.builders.resolved_run import ResolvedRun, resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.builders.sampler import replayed_from
from tutelage.builders.self_replay import with_self_replay
from tutelage.config import Settings
from tutelage.distributed.process_group import ProcessGroup, open_process_group, process_group_here
from tutelage.errors import command
from tutelage.evaluate.saved_results import read_eval_result, write_eval_result
from tutelage.evaluate.suite import EvalResult, EvalSuite, Metrics
from tutelage.export.model_folder import save_trained
from tutelage.model.adapters.prompt_tuning import without_prompt
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import explain_missing_paths, read_inputs, skipped_steps
from tutelage.runs.metrics_log import Recorder, RowsRecord, record_path
from tutelage.runs.sessions import Session, Start, open_session
from tutelage.runs.tracker_group import TrackerGroup
from tutelage.system.allocator import allocator_warning
from tutelage.system.heap import trim_heap
from tutelage.train.abort import row_tokens_after_out_of_memory
from tutelage.train.announcement import announce_architecture, announce_model
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.choice import restore_ending_weights
from tutelage.train.dataloader import rank_batches
from tutelage.train.disk_space import DiskNeeds, require_room
from tutelage.train.due import cadence_of, heldout_of, intermediate_of
from tutelage.train.extension import Part, has_other_length, order_over_parts, parts_in, schedule_of
from tutelage.train.finished import complete, trained_sha256
from tutelage.train.listener import Listener
from tutelage.train.loop import Ending, Outcome, Parts, train
from tutelage.train.loss_spike import SpikeGuard
from tutelage.train.replay_comparison import RecordedRun
from tutelage.train.result import result_of
from tutelage.train.signals import stop_requests
from tutelage.train.startup import has_no_step_yet, opened


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended, the folder that holds all of it, and what `result.json` says (empty when interrupted)."""

    folder: Path
    ended: Ending
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A run under way: what it was told, what it works on, and where it reports to.

    `resume` goes on from `checkpoint`, or from the newest one; `skipped` are steps, counted from 1, that are left out;
    `recorded` is the run that this one repeats; `parts` are those laid out for another length.
    """

    resolved: ResolvedRun
    base: Path
    prepared: Prepared
    train_state: TrainState
    eval_suite: EvalSuite
    screen: Screen
    resume: bool
    tracking: TrackerGroup
    checkpoint: str | None = None
    skipped: frozenset[int] = frozenset()
    recorded: RecordedRun | None = None
    parts: tuple[Part, ...] = ()

    @property
    def settings(self) -> Settings:
        """What the run was told."""
        return self.resolved.settings

    @property
    def folder(self) -> Path:
        """Where all of it is written."""
        return self.settings.run_folder


def run(
    settings: Settings,
    screen: Screen,
    *,
    resume: bool = False,
    checkpoint: str | None = None,
    skip_step: bool = False,
    recorded: RecordedRun | None = None,
) -> Finished:
    """Prepare, measure, train, measure again, save, report.

    Args:
        settings: resolved settings.
        screen: told what happens.
        resume: go on from the newest checkpoint in the run's folder.
        checkpoint: go on from this one instead.
        skip_step: leave out the step that the run was stopped before.
        recorded: a run that this one repeats: the same inputs are required, the same steps left out, every record is
            compared, and the run ends once there is nothing more to compare.

    Raises:
        TutelageError: of the kind that fits; see each room.
    """
    process_group, start = process_group_here(), Start()
    settings = with_adapters_own(settings)
    screen = screen if process_group.is_main else Screen(Terminal(quiet=True))
    settings = process_group.local_main_first("self-replay", partial(with_self_replay, settings, screen))
    resolved = resolve(settings, processes=process_group.size)
    if resume and (result := _completed(settings, screen, process_group)) is not None:
        return Finished(settings.run_folder, "finished", result)
    source = settings.run_folder if recorded is None else recorded.folder
    skipped = skipped_steps(source, leave_out=skip_step) if resume or recorded is not None else []
    begins_anew = resume and (row_tokens_after_out_of_memory(source, log=screen.log) or has_no_step_yet(source))
    if resume and (checkpoint is not None or not begins_anew):
        Checkpoints(source / run_files.CHECKPOINTS, keep=1).newest_to_oldest(chosen=checkpoint)  # or says so now
    resumption: dict[str, Any] = {"resume": resume, "checkpoint": checkpoint}
    lm_eval = process_group.local_main_first("lm-eval", partial(lm_eval_of, settings, screen.log))
    with explain_missing_paths(source if resume or recorded is not None else None):
        base, prepared, folder_lock = process_group.local_main_first(
            "data",
            partial(opened, resolved, screen, process_group, **resumption, skipped=skipped, recorded=recorded),
        )
    with folder_lock, open_process_group(process_group, device=resolved.device):
        process_group.require_equal("settings", config.dump(settings))
        process_group.require_equal("data", json.dumps(prepared.data_sha256 | prepared.examples_sha256))
        trackers = settings.train.trackers if process_group.is_main else ()
        tracking = TrackerGroup.of(trackers, settings.run_folder, log=screen.log)
        tracking.start(tomllib.loads(config.dump(settings)), settings.run_folder.name)
        resolved = decide_recompute(resolved, prepared, log=screen.log)
        parts = parts_in(read_inputs(settings.run_folder))
        train_state = _train_state(resolved, base, prepared, process_group, screen, parts)
        eval_suite = eval_suite_for(resolved, prepared, architecture=train_state.strategy.architecture, lm_eval=lm_eval)
        job = Job(resolved, base, prepared, train_state, eval_suite, screen, tracking=tracking, **resumption)
        job = replace(job, skipped=frozenset(skipped), recorded=recorded, parts=parts)
        _announce(screen, train_state)
        require_room(job.folder, _disk_needs(job), process_group, log=screen.log)
        with open_session(job.folder, start, resume=resume, writes=process_group.is_main, log=screen.log) as session:
            finished = _run(job, session)
        process_group.barrier()
    return finished


def _completed(settings: Settings, screen: Screen, process_group: ProcessGroup) -> dict[str, Any] | None:
    """The result of a run that a resume has nothing left to train in, its page written; None where it has."""
    if process_group.size > 1 or has_other_length(settings.run_folder, settings):
        return None
    return complete(settings.run_folder, screen)


def _train_state(
    resolved: ResolvedRun, base: Path, prepared: Prepared, group: ProcessGroup, screen: Screen, parts: tuple[Part, ...]
) -> TrainState:
    open_calibration, longest = calibration_for(resolved, prepared, screen), longest_rows(resolved, prepared)
    state = train_state_for(resolved, base, group, open_calibration=open_calibration, longest=longest)
    return held_to_base(resolved, prepared, order_over_parts(resolved.settings, prepared, parts), state, screen)


def _announce(screen: Screen, train_state: TrainState) -> None:
    announce_model(
        screen,
        train_state.loaded,
        train_state.adapted,
        train_state.precision,
        state_bytes=train_state.state_bytes,
        layout=train_state.strategy.layout,
    )
    if (cost := allocator_warning(train_state.loaded.device)) is not None:
        screen.log(f"  {cost}")
    announce_architecture(screen, train_state.strategy.architecture)


def _disk_needs(job: Job) -> DiskNeeds:
    state = job.train_state
    return DiskNeeds(state.adapted.trainable_bytes, state.state_bytes, job.settings.train.keep_checkpoints)


def _run(job: Job, session: Session) -> Finished:
    settings, process_group = job.settings, job.train_state.strategy.process_group
    baseline_eval = _measure_baseline(job)
    _ask_base(job)
    outcome = _train(job, baseline_eval, session)
    if outcome.ended == "interrupted":
        job.tracking.finish({})
        if job.recorded is None:  # a replay is begun again; what there is to say of it, its caller says
            resume_command = command("train", "--resume", job.folder)
            job.screen.log(f"Stopped after step {outcome.progress.steps_done}. Go on with: {resume_command}")
        return Finished(job.folder, outcome.ended, {})
    chosen = restore_ending_weights(job.folder, _checkpoints(job), job.train_state.optimizer, outcome.progress)
    trim_heap()
    _save_trained(job)  # before all that is measured of them: what was trained is not lost when a measure fails
    weights = process_group.gather(_trained_sha256(job) if process_group.is_main else {})[0]
    trained_eval = _run_eval_suite(
        job, "After training", model=job.train_state.model, kept=(run_files.REPLIES_AFTER, weights)
    )
    trained_eval = replace(
        trained_eval,
        divergence=divergence_of(
            job.train_state.model, job.train_state.strategy, path=job.folder / run_files.BASE_REPLIES, screen=job.screen
        ),
    )
    if process_group.is_main:
        write_eval_result(job.folder / run_files.AFTER, trained_eval)
    if not process_group.is_main:
        return Finished(job.folder, outcome.ended, {})
    result = result_of(
        settings,
        job.prepared,
        outcome,
        loaded=job.train_state.loaded,
        adapted=job.train_state.adapted,
        precision=job.train_state.precision,
        optimizer_bytes=sum(tensor.nbytes for tensor in job.train_state.optimizer.state().values()),
        before=baseline_eval,
        after=trained_eval,
        parts=job.parts,
    )
    result |= session.figures()
    result |= {"trained_sha256": weights} | ({} if chosen is None else {"chosen_step": chosen})
    run_files.write_json(job.folder / run_files.RESULT, result)  # written last: it marks the run as finished
    (job.folder / run_files.BASE_REPLIES).unlink(missing_ok=True)
    if not result["unmeasured"]:
        forget_replies(job.folder)
        # A resume that takes the measures that failed begins with them, and a run of more epochs may still end so.
        if outcome.progress.best_step == outcome.progress.steps_done:
            _checkpoints(job).forget_best()
    report.write(job.folder)
    job.tracking.finish(result)
    return Finished(job.folder, outcome.ended, result)


def _save_trained(job: Job) -> None:
    sharded = job.train_state.strategy.fsdp_root is not None
    save_trained(
        job.train_state.model,
        job.train_state.optimizer,
        job.prepared.renderer,
        job.folder / run_files.trained_name(job.settings),
        stored_as=job.train_state.stored_as,
        process_group=job.train_state.strategy.process_group,
        sharded=sharded,
        start=job.train_state.adapted.start,
        original_model=loaded_base(job.resolved, job.base)[0] if job.settings.model.freeze and not sharded else None,
    )


def _trained_sha256(job: Job) -> dict[str, str]:
    return trained_sha256(job.folder / run_files.trained_name(job.settings))


def _run_eval_suite(job: Job, title: str, *, model: Any, kept: tuple[str, dict[str, str]]) -> EvalResult:
    """Measure a model; `kept` is the file in which replies are kept as they end, and the hashes of its weights."""
    asked = (job.settings, job.train_state, model, job.prepared.renderer, job.eval_suite)
    return run_suite_on_ranks(*asked, title=title, kept=kept, screen=job.screen)


def _untouched(job: Job) -> Any:
    """The model as it is before the first step, as a base."""
    return job.train_state.model if continued(job.settings) else without_prompt(job.train_state.model)


def _ask_base(job: Job) -> None:
    """Have the base reply, for the divergence from it; a replay, which ends before that is measured, does not."""
    if job.recorded is None:
        base_replies_for(
            job.settings,
            job.prepared,
            _untouched(job),
            job.train_state.strategy,
            path=job.folder / run_files.BASE_REPLIES,
            screen=job.screen,
        )


def _measure_baseline(job: Job) -> EvalResult:
    """Measure the untouched model; a resumed run reads what its first part measured, or measures it now."""
    path = job.folder / run_files.BEFORE
    if not job.settings.evaluate.before:
        return EvalResult(Metrics(), (), ())
    earlier = read_eval_result(path, log=job.screen.log) if job.resume else None
    if job.train_state.strategy.process_group.any(earlier is not None and not earlier.failed):
        assert earlier is not None, "all processes see one folder"
        return earlier
    kept = (run_files.REPLIES_BEFORE, read_inputs(job.folder)["base_sha256"])
    asked_again = replace(job.eval_suite, noise_prompts=job.settings.evaluate.noise_prompts)
    eval_result = _run_eval_suite(
        replace(job, eval_suite=asked_again), "Before training", model=_untouched(job), kept=kept
    )
    if job.train_state.strategy.process_group.is_main:
        write_eval_result(path, eval_result)
    return eval_result


def _checkpoints(job: Job) -> Checkpoints:
    keep, process_group = job.settings.train.keep_checkpoints, job.train_state.strategy.process_group
    return Checkpoints(job.folder / run_files.CHECKPOINTS, keep=keep, process_group=process_group)


def _restore_progress(job: Job, checkpoints: Checkpoints) -> tuple[Progress, int | None]:
    """Where a resumed run stands; and the new budget of a row, if memory ran out on one of its processes."""
    row_tokens, process_group = (
        row_tokens_after_out_of_memory(job.folder, log=lambda _: None),
        job.train_state.strategy.process_group,
    )
    progress, begins_anew = Progress(), row_tokens is not None or has_no_step_yet(job.folder)
    if not begins_anew or job.checkpoint is not None or checkpoints.newest() is not None:
        progress = checkpoints.restore_newest(job.train_state.optimizer, chosen=job.checkpoint, log=job.screen.log)
    process_group.barrier()  # all have read what the next line deletes
    (job.folder / run_files.STOPPED).unlink(missing_ok=True)
    return progress if row_tokens is None else replace(progress, row_tokens=row_tokens), row_tokens


def _train(job: Job, baseline_eval: EvalResult, session: Session) -> Outcome:
    train_settings, train_state, examples = job.settings.train, job.train_state, job.prepared.train
    order = order_over_parts(job.settings, job.prepared, job.parts)
    schedule = schedule_of(job.settings, order, job.parts)
    checkpoints = _checkpoints(job)
    progress, reduced_row_tokens = _restore_progress(job, checkpoints) if job.resume else (Progress(), None)
    strategy = train_state.strategy
    record = record_path(job.folder) if strategy.process_group.is_main else None
    recorder = Recorder(record, from_step=progress.steps_done, log=job.screen.log)
    session.mark(recorder.previous_elapsed_seconds)
    heldout = heldout_of(train_state, job.eval_suite, log=job.screen.log)
    intermediate = intermediate_of(
        job.settings, order, train_state, job.prepared.renderer, job.eval_suite, baseline_eval,
        repeats=job.recorded is not None, screen=job.screen,
    )  # fmt: skip
    batches = rank_batches(
        strategy,
        examples,
        order,
        row_tokens=job.resolved.row_tokens,
        start_step=progress.steps_done,
        share_prefixes=job.resolved.trains_on_shared_prefixes,
        device=job.resolved.device,
        max_row_tokens=progress.row_tokens,
        replayed_from=replayed_from(job.settings, job.prepared.train_totals.examples),
    )
    with (
        job.screen.training(order.steps, progress.steps_done) as show_record,
        job.tracking.attach_to(show_record) as watch,
        stop_requests(job.screen.log) as stop_requested,
    ):
        listener = Listener(
            recorder,
            watch if job.recorded is None else job.recorded.beside(watch),
            lambda: stop_requested() or (job.recorded is not None and job.recorded.asked_to_stop()),
        )
        if reduced_row_tokens is not None:
            listener.tell(RowsRecord(progress.steps_done + 1, reduced_row_tokens, recorder.previous_elapsed_seconds))
        parts = Parts(
            model=train_state.model,
            row_loss=strategy.row_loss,
            optimizer=train_state.optimizer,
            schedule=schedule,
            max_grad_norm=train_settings.max_grad_norm,
            cadence=cadence_of(job.settings, order, processes=job.resolved.processes),
            checkpoints=checkpoints,
            listener=listener,
            heldout=heldout,
            process_group=strategy.process_group,
            spike_guard=None
            if train_settings.spike_factor is None
            else SpikeGuard(train_settings.spike_factor, train_settings.spike_window),
            sums_loss=train_settings.loss_reduction == "sum",
            training_loss=train_settings.loss,
            held=strategy.held,
            intermediate=intermediate,
        )
        outcome = train(parts, (batch for batch in batches if batch.step + 1 not in job.skipped), progress)
    recorder.close()
    return outcome
