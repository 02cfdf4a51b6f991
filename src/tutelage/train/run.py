"""Settings -> a finished run. The only place that reads settings; everything it calls takes named arguments."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tutelage import config, report
from tutelage.config import Settings
from tutelage.errors import CheckpointError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.measure import Exam, Measures, Sitting, sit
from tutelage.model.activations import recompute_activations, recomputes
from tutelage.model.adapt import Adapted, add_lora, train_everything
from tutelage.model.attention import isolate_documents
from tutelage.model.compiled import compile_layers
from tutelage.model.embeddings import untrained_tokens
from tutelage.model.load import DTYPES, Loaded, Precision, compute_in, device_here, load, settled_precision
from tutelage.model.loss import row_loss
from tutelage.model.ranks import Ranks, joined, ranks_here
from tutelage.model.shard import Door, shard
from tutelage.model.source import model_folder
from tutelage.pack import Order, batches
from tutelage.render.show import coloured_rows
from tutelage.train import folder as run_files
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.exam import exam_for
from tutelage.train.gates import pass_gates
from tutelage.train.loop import Ending, Outcome, RowLoss, train
from tutelage.train.masters import Masters
from tutelage.train.memory import give_back
from tutelage.train.optimiser import adamw
from tutelage.train.prefetch import ahead
from tutelage.train.prepare import Prepared, prepare, prepared_cache
from tutelage.train.record import Recorder
from tutelage.train.result import result_of
from tutelage.train.save import save_trained
from tutelage.train.schedule import Schedule, warmup_steps
from tutelage.train.screen import Screen
from tutelage.train.stopping import stop_requests
from tutelage.types import Batch

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
    door: Door | None = None

    @property
    def row_loss(self) -> RowLoss:
        """The loss of a row, by way of the door where the model is sharded."""
        return row_loss if self.door is None else self.door.row_loss


@dataclass(frozen=True, slots=True)
class Job:
    """A run under way: what it was told, what it works on, and where it reports to."""

    settings: Settings
    folder: Path
    prepared: Prepared
    learner: Learner
    exam: Exam
    screen: Screen
    resume: bool
    ranks: Ranks


def run(settings: Settings, screen: Screen, *, resume: bool = False) -> Finished:
    """Prepare, measure, train, measure again, save, report.

    Args:
        settings: resolved settings.
        screen: told what happens.
        resume: go on from the newest checkpoint in the run's folder.

    Raises:
        TutelageError: of the kind that fits; see each room.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    ranks = ranks_here()
    screen = screen if ranks.is_main else Screen(Console(quiet=True))
    base, prepared = ranks.after_leader("data", lambda: _prepare(settings, screen, ranks, resume=resume))
    with joined(ranks, device=device_here()):
        ranks.agree("settings", config.dump(settings))
        ranks.agree("data", json.dumps(prepared.data_sha256))
        job = _begin(settings, screen, base, prepared, ranks, resume=resume)
        finished = _run(job, started, began)
        ranks.wait_for_all()
    return finished


def _run(job: Job, started: datetime, began: float) -> Finished:
    settings, ranks = job.settings, job.ranks
    before = _before(job)
    outcome = _train(job)
    if outcome.ended == "interrupted":
        job.screen.say(
            f"Stopped after step {outcome.progress.steps_done}. Go on with: tutelage train --resume {job.folder}"
        )
        return Finished(job.folder, outcome.ended, {})
    best = outcome.progress.best_step
    if best is not None and best != outcome.progress.steps_done:
        _checkpoints(job).restore_best(job.learner.optimiser)
    give_back()
    after = _sit(job, "After training: asking")
    if ranks.is_main:
        _save_sitting(job.folder / run_files.AFTER, after)
    name = run_files.ADAPTER if settings.model.method == "lora" else run_files.MODEL
    save_trained(
        job.learner.model,
        job.learner.optimiser,
        job.prepared.renderer,
        job.folder / name,
        stored_as=job.learner.stored_as,
        ranks=ranks,
    )
    if not ranks.is_main:
        return Finished(job.folder, outcome.ended, {})
    result = result_of(
        settings,
        job.prepared,
        outcome,
        loaded=job.learner.loaded,
        adapted=job.learner.adapted,
        precision=job.learner.precision,
        before=before,
        after=after,
    )
    result |= {"started": started.isoformat(timespec="seconds"), "elapsed_seconds": time.perf_counter() - began}
    run_files.write_json(job.folder / run_files.RESULT, result)  # written last: it marks the run as finished
    _checkpoints(job).forget_best()
    report.write(job.folder)
    return Finished(job.folder, outcome.ended, result)


def _prepare(settings: Settings, screen: Screen, ranks: Ranks, *, resume: bool) -> tuple[Path, Prepared]:
    """The model's folder and the data; data problems show before a model is loaded."""
    folder = settings.run_folder
    if resume and (folder / run_files.RESULT).is_file():
        raise CheckpointError(
            "This run is finished; there is nothing to resume",
            where=str(folder),
            fix=f"talk to it: tutelage chat {folder}; or start a new run with other settings",
        )
    base = model_folder(settings.model.name, say=screen.say)
    if ranks.is_main and not resume and (moved := run_files.new_run_folder(folder)) is not None:
        screen.say(f"An earlier run of this name is now {moved}")
    for question in config.questions(settings):
        screen.say(f"Is this meant? {question}")
    if not ranks.is_main:
        return base, prepare(settings, base, cache=prepared_cache())
    drops = folder / run_files.DROPS
    drops.unlink(missing_ok=True)
    prepared = prepare(settings, base, ledger_path=drops, cache=prepared_cache(), say=screen.say)
    _pass_gates(prepared, base, whole=settings.render.train_on == "all")
    _write_inputs(folder, settings, prepared, resume=resume)
    _say_data(screen, prepared)
    return base, prepared


def _begin(settings: Settings, screen: Screen, base: Path, prepared: Prepared, ranks: Ranks, *, resume: bool) -> Job:
    learner = _learner(settings, base, ranks)
    screen.say(
        f"Model: {learner.loaded.parameters:,} parameters on {learner.loaded.device}, {settings.model.method}, "
        f"{learner.adapted.trainable:,} trained, {learner.precision}"
        + (f", sharded over {ranks.size} processes" if ranks.size > 1 else "")
    )
    exam = exam_for(settings, prepared)
    return Job(settings, settings.run_folder, prepared, learner, exam, screen, resume, ranks)


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
    for note in ledger.notes:
        screen.say(f"  note: {note}")


def _write_inputs(folder: Path, settings: Settings, prepared: Prepared, *, resume: bool) -> None:
    """Record settings, hashes, books and a few rows; a resume must find the bytes that the run began with."""
    template = prepared.renderer.template.sha256()
    path = folder / run_files.INPUTS
    if resume and path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        then, now = earlier["data_sha256"], prepared.data_sha256
        changed = [name for name in now if then.get(name) != now[name]]
        if changed or earlier["template_sha256"] != template:
            raise CheckpointError(
                "The data or template is not the one this run began with, so this would not be a resume",
                where=", ".join(changed) or "the chat template",
                expected="the same bytes",
                fix="restore the files, or start a new run",
            )
    run_files.write_text(folder / run_files.SETTINGS, config.dump(settings))
    inputs = {
        "data_sha256": prepared.data_sha256,
        "template_sha256": template,
        "system_prompt": prepared.system_prompt,
        "seed": settings.seed,
        "versions": run_files.versions(),
        "git_commit": run_files.git_commit(),
    }
    run_files.write_json(path, inputs)
    run_files.write_json(folder / run_files.LEDGER, prepared.ledger.as_dict())
    rows = coloured_rows(prepared.train[:ROWS_SHOWN], prepared.renderer.tokenizer)
    run_files.write_json(folder / run_files.ROWS, rows)


def _learner(settings: Settings, base: Path, ranks: Ranks) -> Learner:
    if settings.model.threads is not None:
        torch.set_num_threads(settings.model.threads)
    torch.manual_seed(settings.seed)
    several = ranks.size > 1
    model, loaded = load(base, trust_remote_code=settings.model.trust_remote_code, onto="cpu" if several else None)
    stored_as = next(model.parameters()).dtype
    if settings.model.method == "lora":
        lora = settings.lora
        model, adapted = add_lora(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)
    else:
        model, adapted = train_everything(model)
    if recomputes(settings.train.activation_checkpointing, row_tokens=settings.pack.row_tokens):
        recompute_activations(model)
    if settings.model.compile:
        compile_layers(model)
    precision = settled_precision(settings.model.precision)
    door = None
    if several:
        loaded = replace(loaded, device=device_here())
        door, _ = shard(model, ranks=ranks, device=device_here(), precision=precision)
        torch.manual_seed(settings.seed + ranks.rank)  # other rows want other dropout
    elif precision == "fp32":
        compute_in(model, precision)
    # Masters are taken before a cast to bf16, which would round away what the checkpoint knows.
    optimiser = Masters(
        model,
        build=adamw(
            weight_decay=settings.train.weight_decay,
            betas=(settings.train.beta1, settings.train.beta2),
            epsilon=settings.train.epsilon,
        ),
        shared=several or precision == "fp32",
    )
    if not several:
        compute_in(model, precision)
    isolate_documents(model)
    # On disk no narrower than what was computed with, so that the folder is the model that was measured.
    kept_as = torch.promote_types(stored_as, DTYPES[precision])
    return Learner(model, loaded, adapted, kept_as, precision, optimiser, door)


def _sit(job: Job, title: str) -> Sitting:
    with job.screen.counting(f"{title} {job.exam.replies} prompts", job.exam.replies) as done:
        return sit(
            job.learner.model,
            job.prepared.renderer,
            job.exam,
            done=lambda replies: done(replies * job.ranks.size),
            row_loss=job.learner.row_loss,
            whole=nullcontext if job.learner.door is None else job.learner.door.whole,
            ranks=job.ranks,
        )


def _before(job: Job) -> Sitting:
    """Measure the untouched model; a resumed run reads what its first part measured."""
    path = job.folder / run_files.BEFORE
    if job.resume and path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Sitting(Measures(**saved["measures"]), tuple(saved["task"]), tuple(saved["general"]))
    if not job.settings.evaluate.before or job.resume:
        return Sitting(Measures(), (), ())
    sitting = _sit(job, "Before training: asking")
    if job.ranks.is_main:
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
    return Checkpoints(job.folder / run_files.CHECKPOINTS, keep=job.settings.train.keep_checkpoints, ranks=job.ranks)


def _train(job: Job) -> Outcome:
    asked, learner, examples = job.settings.train, job.learner, job.prepared.train
    order = Order(len(examples), asked.batch_examples, asked.epochs, job.settings.seed, asked.max_steps)
    schedule = Schedule(
        kind=asked.schedule,
        peak=job.settings.peak_learning_rate,
        steps=order.steps,
        warmup_steps=warmup_steps(steps=order.steps, share=asked.warmup_share, exact=asked.warmup_steps),
        minimum_ratio=asked.minimum_ratio,
    )
    checkpoints = _checkpoints(job)
    progress = checkpoints.restore_newest(learner.optimiser) if job.resume else Progress()
    record = job.folder / run_files.RECORD if job.ranks.is_main else Path(os.devnull)
    recorder = Recorder(record, from_step=progress.steps_done)
    epoch_steps = math.ceil(len(examples) / asked.batch_examples)
    heldout_rows = job.exam.heldout_rows
    with (
        job.screen.training(order.steps, progress.steps_done) as watch,
        stop_requests(job.screen.say) as asked_to_stop,
    ):
        outcome = train(
            learner.model,
            _batches(job, order, progress.steps_done),
            row_loss=learner.row_loss,
            optimiser=learner.optimiser,
            schedule=schedule,
            max_gradient_norm=asked.max_gradient_norm,
            heldout=(lambda: heldout_loss(learner.model, heldout_rows, row_loss=learner.row_loss, ranks=job.ranks))
            if heldout_rows
            else None,
            evaluate_every=asked.evaluate_every or math.ceil(epoch_steps / 4),
            patience=asked.early_stop_patience,
            checkpoints=checkpoints,
            checkpoint_every=asked.checkpoint_every,
            recorder=recorder,
            watch=watch,
            asked_to_stop=asked_to_stop,
            progress=progress,
            ranks=job.ranks,
        )
    recorder.close()
    return outcome


def _batches(job: Job, order: Order, start_step: int) -> Iterator[Batch]:
    """This process's batches; those for a GPU are made ahead."""
    made = batches(
        job.prepared.train,
        order,
        row_tokens=job.settings.pack.row_tokens,
        start_step=start_step,
        rank=job.ranks.rank,
        ranks=job.ranks.size,
    )
    return ahead(made, pin=True) if job.learner.loaded.device == "cuda" else made
