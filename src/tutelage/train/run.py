"""Settings -> a finished run. The only place that reads settings; everything it calls takes named arguments."""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tutelage import config, report
from tutelage.config import Settings
from tutelage.errors import CheckpointError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.measure import Exam, Measures, Sitting, sit
from tutelage.model.adapt import Adapted
from tutelage.model.attention import isolate_documents
from tutelage.model.embedding_noise import add_embedding_noise
from tutelage.model.embeddings import untrained_tokens
from tutelage.model.load import DTYPES, Loaded, Precision, compute_in, settled_precision
from tutelage.model.loss import row_loss
from tutelage.model.prompt import without_prompt
from tutelage.model.quantise import require_bitsandbytes
from tutelage.model.residual_dropout import drop_residuals
from tutelage.model.source import model_folder
from tutelage.pack import batches
from tutelage.render.show import coloured_rows
from tutelage.train import folder as run_files
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.exam import exam_for
from tutelage.train.gates import pass_gates
from tutelage.train.inputs import held_against, machine, read_inputs, skipped_steps
from tutelage.train.loop import Ending, Outcome, train
from tutelage.train.masters import Masters
from tutelage.train.memory import give_back
from tutelage.train.method import adapted_model, loaded_base, model_lines, trained_name
from tutelage.train.optimiser import embedding_parameters, optimizer_named, require_optimizer, slow_here
from tutelage.train.prepare import Prepared, prepare, prepared_cache
from tutelage.train.record import Recorder
from tutelage.train.recorded import Recorded
from tutelage.train.result import result_of
from tutelage.train.sampling import epoch_steps, order_of
from tutelage.train.save import save_trained
from tutelage.train.schedule import Schedule, warmup_steps
from tutelage.train.screen import Screen
from tutelage.train.spikes import SpikeGuard
from tutelage.train.state_bytes import state_bytes
from tutelage.train.stopping import stop_requests
from tutelage.train.trackers import require_tracker, tracker
from tutelage.train.tracking import Tracking
from tutelage.types import Row

ROWS_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended, the folder that holds all of it, and what `result.json` says (empty when interrupted)."""

    folder: Path
    ended: Ending
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Learner:
    """The model with what trains it."""

    model: Any
    loaded: Loaded
    adapted: Adapted
    stored_as: torch.dtype
    precision: Precision
    optimiser: Masters
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """A run under way: what it was told, what it works on, and where it reports to.

    `resume` goes on from `checkpoint`, or from the newest one; `skipped` are steps, counted from 1, that are left out;
    `recorded` is the run that this one repeats.
    """

    settings: Settings
    folder: Path
    base: Path
    prepared: Prepared
    learner: Learner
    exam: Exam
    screen: Screen
    resume: bool
    tracking: Tracking
    checkpoint: str | None = None
    skipped: frozenset[int] = frozenset()
    recorded: Recorded | None = None


def run(
    settings: Settings,
    screen: Screen,
    *,
    resume: bool = False,
    checkpoint: str | None = None,
    skip_step: bool = False,
    recorded: Recorded | None = None,
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
    started, began = datetime.now(UTC), time.perf_counter()
    source = settings.run_folder if recorded is None else recorded.folder
    skipped = skipped_steps(source, leave_out=skip_step) if resume or recorded is not None else []
    job = _begin(settings, screen, resume=resume, skipped=skipped, recorded=recorded)
    job = replace(job, checkpoint=checkpoint)
    before = _before(job)
    outcome = _train(job)
    if outcome.ended == "interrupted":
        job.tracking.finish({})
        screen.say(
            f"Stopped after step {outcome.progress.steps_done}. Go on with: tutelage train --resume {job.folder}"
        )
        return Finished(job.folder, outcome.ended, {})
    job.learner.optimiser.settle()
    best = outcome.progress.best_step
    if best is not None and best != outcome.progress.steps_done:
        _checkpoints(job).restore_best(job.learner.optimiser)
    give_back()
    after = _sit(job, "After training: asking", model=job.learner.model)
    _save_sitting(job.folder / run_files.AFTER, after)
    result = result_of(
        settings,
        job.prepared,
        outcome,
        loaded=job.learner.loaded,
        adapted=job.learner.adapted,
        precision=job.learner.precision,
        optimizer_bytes=sum(one.nbytes for one in job.learner.optimiser.state().values()),
        before=before,
        after=after,
    )
    save_trained(
        job.learner.model,
        job.learner.optimiser,
        job.prepared.renderer,
        job.folder / trained_name(settings),
        stored_as=job.learner.stored_as,
        start=job.learner.adapted.start,
        untouched=loaded_base(settings, job.base)[0] if settings.model.freeze else None,
    )
    result |= {"started": started.isoformat(timespec="seconds"), "elapsed_seconds": time.perf_counter() - began}
    run_files.write_json(job.folder / run_files.RESULT, result)  # written last: it marks the run as finished
    _checkpoints(job).forget_best()
    report.write(job.folder)
    job.tracking.finish(result)
    return Finished(job.folder, outcome.ended, result)


def _begin(settings: Settings, screen: Screen, *, resume: bool, skipped: list[int], recorded: Recorded | None) -> Job:
    """Everything up to the first forward pass; data problems show before a model is loaded."""
    folder = settings.run_folder
    if resume and (folder / run_files.RESULT).is_file():
        raise CheckpointError(
            "This run is finished; there is nothing to resume",
            where=str(folder),
            fix=f"talk to it: tutelage chat {folder}; or start a new run with other settings",
        )
    if settings.model.method == "qlora":
        require_bitsandbytes()
    require_optimizer(settings.train.optimizer, device="cuda" if torch.cuda.is_available() else "cpu")
    for name in settings.train.trackers:
        require_tracker(name)
    base = model_folder(settings.model.name, say=screen.say)
    run_files.clear_scratch(folder)
    if not resume and (moved := run_files.new_run_folder(folder)) is not None:
        screen.say(f"An earlier run of this name is now {moved}")
    native_bf16 = settled_precision("auto") == "bf16"
    slow = slow_here(settings.train.optimizer, native_bf16=native_bf16)
    for question in [*config.questions(settings), *([slow] if slow else [])]:
        screen.say(f"Is this meant? {question}")
    drops = folder / run_files.DROPS
    drops.unlink(missing_ok=True)
    prepared = prepare(settings, base, ledger_path=drops, cache=prepared_cache(), say=screen.say)
    _pass_gates(prepared, base, whole=settings.render.train_on == "all")
    earlier = read_inputs(folder) if resume else {} if recorded is None else read_inputs(recorded.folder)
    _write_inputs(folder, settings, prepared, earlier, screen, resume=resume, skipped=skipped)
    _say_data(screen, prepared)
    tracking = _tracking(settings, screen)
    learner = _learner(settings, base)
    for line in model_lines(learner.loaded, learner.adapted, learner.precision, state_bytes=learner.state_bytes):
        screen.say(line)
    return Job(
        settings,
        folder,
        base,
        prepared,
        learner,
        exam_for(settings, prepared),
        screen,
        resume,
        tracking,
        skipped=frozenset(skipped),
        recorded=recorded,
    )


def _tracking(settings: Settings, screen: Screen) -> Tracking:
    """Trackers, started."""
    places = {name: settings.run_folder / run_files.TRACKERS / name for name in settings.train.trackers}
    tracking = Tracking({name: tracker(name, place) for name, place in places.items()}, say=screen.say)
    tracking.start(tomllib.loads(config.dump(settings)), settings.run_folder.name)
    return tracking


def _pass_gates(prepared: Prepared, base: Path, *, whole: bool) -> None:
    tokenizer = prepared.renderer.tokenizer
    untrained_V = untrained_tokens(base, tokenizer)
    for note in pass_gates(prepared.train, tokenizer, untrained_V=untrained_V, whole=whole):
        prepared.ledger.note(note)


def _say_data(screen: Screen, prepared: Prepared) -> None:
    ledger, totals = prepared.ledger, prepared.train_totals
    screen.say(
        f"Data: {ledger.rows_in} rows in = {ledger.rows_kept} kept + {ledger.rows_dropped} dropped; "
        f"{totals.examples} training sequences, {totals.tokens:,} tokens, {totals.trained_tokens:,} of them trained "
        f"({totals.trained_tokens / totals.tokens:.0%})"
    )
    for reason, count in ledger.dropped.most_common():
        sample = ledger.drop_samples[reason][0]
        screen.say(f"  dropped {count}: {reason}, first {sample.address}: {sample.detail}")
    for reason, count in ledger.changed.most_common():
        screen.say(f"  changed {count}: {reason}, first {ledger.change_samples[reason][0].address}")
    for source in prepared.sources:
        screen.say(f"  {source.weight:g} x {len(source.places)} sequences an epoch: {source.name}")
    for note in ledger.notes:
        screen.say(f"  note: {note}")


def _write_inputs(
    folder: Path,
    settings: Settings,
    prepared: Prepared,
    earlier: dict[str, Any],
    screen: Screen,
    *,
    resume: bool,
    skipped: list[int],
) -> None:
    """Record settings, hashes, books and a few rows; a resume or replay must find the bytes that the run began with."""
    inputs: dict[str, Any] = {
        "data_sha256": prepared.data_sha256,
        "template_sha256": prepared.renderer.template.sha256(),
        "system_prompt": prepared.system_prompt,
        "seed": settings.seed,
        "skipped_steps": skipped,
        "versions": run_files.versions(),
        "machine": machine(settings.model.threads),
        "git_commit": run_files.git_commit(),
    }
    if earlier:
        inputs |= held_against(earlier, inputs, resume=resume, say=screen.say)
    run_files.write_text(folder / run_files.SETTINGS, config.dump(settings))
    run_files.write_json(folder / run_files.INPUTS, inputs)
    run_files.write_json(folder / run_files.LEDGER, prepared.ledger.as_dict())
    rows = coloured_rows(prepared.train[:ROWS_SHOWN], prepared.renderer.tokenizer)
    run_files.write_json(folder / run_files.ROWS, rows)


def _learner(settings: Settings, base: Path) -> Learner:
    if settings.model.threads is not None:
        torch.set_num_threads(settings.model.threads)
    torch.manual_seed(settings.seed)
    model, loaded = loaded_base(settings, base)
    stored_as = next(one.dtype for one in model.parameters() if one.is_floating_point())
    model, adapted = adapted_model(settings, model, base)
    precision = settled_precision(settings.model.precision)
    if shared := precision == "fp32":
        compute_in(model, precision)
    embeddings = embedding_parameters(model)
    # Masters are taken before a cast to bf16, which would round away what the checkpoint knows.
    optimiser = Masters(
        model,
        build=optimizer_named(
            settings.train.optimizer,
            weight_decay=settings.train.weight_decay,
            betas=(settings.train.beta1, settings.train.beta2),
            epsilon=settings.train.epsilon,
            embeddings=embeddings,
        ),
        shared=shared,
        average_decay=settings.train.ema_decay,
    )
    compute_in(model, precision)
    isolate_documents(model)
    if settings.train.residual_dropout > 0:
        drop_residuals(model, last=settings.train.residual_dropout)
    if settings.train.neftune_alpha is not None:
        add_embedding_noise(model, alpha=settings.train.neftune_alpha)
    # On disk no narrower than what was computed with, so that the folder is the model that was measured.
    kept_as = torch.promote_types(stored_as, DTYPES[precision])
    state = state_bytes(
        settings.train.optimizer,
        optimiser.masters,
        embeddings=embeddings,
        averaged=settings.train.ema_decay is not None,
    )
    return Learner(model, loaded, adapted, kept_as, precision, optimiser, state)


def _sit(job: Job, title: str, *, model: Any) -> Sitting:
    with job.screen.counting(f"{title} {job.exam.replies} prompts", job.exam.replies) as done:
        return sit(model, job.prepared.renderer, job.exam, done=done)


def _before(job: Job) -> Sitting:
    """Measure the untouched model; a resumed run reads what its first part measured."""
    path = job.folder / run_files.BEFORE
    if job.resume and path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Sitting(Measures(**saved["measures"]), tuple(saved["task"]), tuple(saved["general"]))
    if not job.settings.evaluate.before or job.resume:
        return Sitting(Measures(), (), ())
    sitting = _sit(job, "Before training: asking", model=without_prompt(job.learner.model))
    _save_sitting(path, sitting)
    return sitting


def _save_sitting(path: Path, sitting: Sitting) -> None:
    saved = {
        "measures": asdict(sitting.measures),
        "task": list(sitting.task_replies),
        "general": list(sitting.general_replies),
    }
    run_files.write_json(path, saved)


def _checkpoints(job: Job) -> Checkpoints:
    return Checkpoints(job.folder / run_files.CHECKPOINTS, keep=job.settings.train.keep_checkpoints)


def _measuring(learner: Learner, rows: Sequence[Row]) -> Callable[[], float]:
    def measure() -> float:
        with learner.optimiser.measured():
            return heldout_loss(learner.model, rows)

    return measure


def _shares_prefixes(settings: Settings) -> bool:
    """What documents share gets one draw of noise, where each of them would have got its own: then none is shared."""
    train = settings.train
    draws = settings.lora.dropout > 0 or train.residual_dropout > 0 or train.neftune_alpha is not None
    return settings.pack.share_prefixes and not draws


def _train(job: Job) -> Outcome:
    asked, learner, examples = job.settings.train, job.learner, job.prepared.train
    order = order_of(job.settings, examples=len(examples), sources=job.prepared.sources)
    schedule = Schedule(
        kind=asked.schedule,
        peak=job.settings.peak_learning_rate,
        steps=order.steps,
        warmup_steps=warmup_steps(steps=order.steps, share=asked.warmup_share, exact=asked.warmup_steps),
        minimum_ratio=asked.minimum_ratio,
    )
    checkpoints = _checkpoints(job)
    progress = Progress()
    if job.resume:
        progress = checkpoints.restore_newest(learner.optimiser, chosen=job.checkpoint)
        (job.folder / run_files.STOPPED).unlink(missing_ok=True)
    recorder = Recorder(job.folder / run_files.RECORD, from_step=progress.steps_done)
    heldout_rows = job.exam.heldout_rows
    given = batches(
        examples,
        order,
        row_tokens=job.settings.pack.row_tokens,
        start_step=progress.steps_done,
        share_prefixes=_shares_prefixes(job.settings),
    )
    recorded = job.recorded
    with (
        job.screen.training(order.steps, progress.steps_done) as shown,
        job.tracking.beside(shown) as watch,
        stop_requests(job.screen.say) as asked_to_stop,
    ):
        outcome = train(
            learner.model,
            (one for one in given if one.step + 1 not in job.skipped),
            row_loss=row_loss,
            optimiser=learner.optimiser,
            schedule=schedule,
            max_gradient_norm=asked.max_gradient_norm,
            heldout=_measuring(learner, heldout_rows) if heldout_rows else None,
            evaluate_every=asked.evaluate_every or math.ceil(epoch_steps(order) / 4),
            patience=asked.early_stop_patience,
            checkpoints=checkpoints,
            checkpoint_every=asked.checkpoint_every,
            recorder=recorder,
            watch=watch if recorded is None else recorded.beside(watch),
            asked_to_stop=lambda: asked_to_stop() or (recorded is not None and recorded.asked_to_stop()),
            progress=progress,
            spikes=None if asked.spike_factor is None else SpikeGuard(asked.spike_factor, asked.spike_window),
        )
    recorder.close()
    return outcome
