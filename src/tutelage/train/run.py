"""Settings -> a finished run. The only place that reads settings; everything it calls takes named arguments."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tutelage import config, report
from tutelage.config import Settings
from tutelage.errors import CheckpointError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.measure import Exam, Measures, Sitting, sit
from tutelage.model.adapt import Adapted, add_lora, train_everything
from tutelage.model.attention import isolate_documents
from tutelage.model.embeddings import untrained_tokens
from tutelage.model.load import DTYPES, Loaded, Precision, compute_in, load, settled_precision
from tutelage.model.loss import row_loss
from tutelage.model.source import model_folder
from tutelage.pack import Order, batches
from tutelage.render.show import coloured_rows
from tutelage.train import folder as run_files
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.exam import exam_for
from tutelage.train.gates import pass_gates
from tutelage.train.loop import Ending, Outcome, train
from tutelage.train.masters import Masters
from tutelage.train.memory import give_back
from tutelage.train.optimiser import adamw
from tutelage.train.prepare import Prepared, prepare, prepared_cache
from tutelage.train.record import Recorder
from tutelage.train.result import result_of
from tutelage.train.save import save_trained
from tutelage.train.schedule import Schedule, warmup_steps
from tutelage.train.screen import Screen
from tutelage.train.stopping import stop_requests

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
    job = _begin(settings, screen, resume=resume)
    before = _before(job)
    outcome = _train(job)
    if outcome.ended == "interrupted":
        screen.say(
            f"Stopped after step {outcome.progress.steps_done}. Go on with: tutelage train --resume {job.folder}"
        )
        return Finished(job.folder, outcome.ended, {})
    best = outcome.progress.best_step
    if best is not None and best != outcome.progress.steps_done:
        _checkpoints(job).restore_best(job.learner.optimiser)
    give_back()
    after = _sit(job, "After training: asking")
    _save_sitting(job.folder / run_files.AFTER, after)
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
    name = run_files.ADAPTER if settings.model.method == "lora" else run_files.MODEL
    save_trained(
        job.learner.model,
        job.learner.optimiser,
        job.prepared.renderer,
        job.folder / name,
        stored_as=job.learner.stored_as,
    )
    result |= {"started": started.isoformat(timespec="seconds"), "elapsed_seconds": time.perf_counter() - began}
    run_files.write_json(job.folder / run_files.RESULT, result)  # written last: it marks the run as finished
    _checkpoints(job).forget_best()
    report.write(job.folder)
    return Finished(job.folder, outcome.ended, result)


def _begin(settings: Settings, screen: Screen, *, resume: bool) -> Job:
    """Everything up to the first forward pass; data problems show before a model is loaded."""
    folder = settings.run_folder
    if resume and (folder / run_files.RESULT).is_file():
        raise CheckpointError(
            "This run is finished; there is nothing to resume",
            where=str(folder),
            fix=f"talk to it: tutelage chat {folder}; or start a new run with other settings",
        )
    base = model_folder(settings.model.name, say=screen.say)
    if not resume and (moved := run_files.new_run_folder(folder)) is not None:
        screen.say(f"An earlier run of this name is now {moved}")
    for question in config.questions(settings):
        screen.say(f"Is this meant? {question}")
    drops = folder / run_files.DROPS
    drops.unlink(missing_ok=True)
    prepared = prepare(settings, base, ledger_path=drops, cache=prepared_cache(), say=screen.say)
    _pass_gates(prepared, base, whole=settings.render.train_on == "all")
    _write_inputs(folder, settings, prepared, resume=resume)
    _say_data(screen, prepared)
    learner = _learner(settings, base)
    screen.say(
        f"Model: {learner.loaded.parameters:,} parameters on {learner.loaded.device}, {settings.model.method}, "
        f"{learner.adapted.trainable:,} trained, {learner.precision}"
    )
    return Job(settings, folder, prepared, learner, exam_for(settings, prepared), screen, resume)


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


def _learner(settings: Settings, base: Path) -> Learner:
    if settings.model.threads is not None:
        torch.set_num_threads(settings.model.threads)
    torch.manual_seed(settings.seed)
    model, loaded = load(base, trust_remote_code=settings.model.trust_remote_code)
    stored_as = next(model.parameters()).dtype
    if settings.model.method == "lora":
        lora = settings.lora
        model, adapted = add_lora(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)
    else:
        model, adapted = train_everything(model)
    precision = settled_precision(settings.model.precision)
    if shared := precision == "fp32":
        compute_in(model, precision)
    # Masters are taken before a cast to bf16, which would round away what the checkpoint knows.
    optimiser = Masters(
        model,
        build=adamw(
            weight_decay=settings.train.weight_decay,
            betas=(settings.train.beta1, settings.train.beta2),
            epsilon=settings.train.epsilon,
        ),
        shared=shared,
    )
    compute_in(model, precision)
    isolate_documents(model)
    # On disk no narrower than what was computed with, so that the folder is the model that was measured.
    kept_as = torch.promote_types(stored_as, DTYPES[precision])
    return Learner(model, loaded, adapted, kept_as, precision, optimiser)


def _sit(job: Job, title: str) -> Sitting:
    with job.screen.counting(f"{title} {job.exam.replies} prompts", job.exam.replies) as done:
        return sit(job.learner.model, job.prepared.renderer, job.exam, done=done)


def _before(job: Job) -> Sitting:
    """Measure the untouched model; a resumed run reads what its first part measured."""
    path = job.folder / run_files.BEFORE
    if job.resume and path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Sitting(Measures(**saved["measures"]), tuple(saved["task"]), tuple(saved["general"]))
    if not job.settings.evaluate.before or job.resume:
        return Sitting(Measures(), (), ())
    sitting = _sit(job, "Before training: asking")
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


def _shares_prefixes(settings: Settings) -> bool:
    """What documents share gets one draw of dropout, where each of them would have got its own: then none is shared."""
    return settings.pack.share_prefixes and settings.lora.dropout == 0.0


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
    recorder = Recorder(job.folder / run_files.RECORD, from_step=progress.steps_done)
    epoch_steps = math.ceil(len(examples) / asked.batch_examples)
    heldout_rows = job.exam.heldout_rows
    with (
        job.screen.training(order.steps, progress.steps_done) as watch,
        stop_requests(job.screen.say) as asked_to_stop,
    ):
        outcome = train(
            learner.model,
            batches(
                examples,
                order,
                row_tokens=job.settings.pack.row_tokens,
                start_step=progress.steps_done,
                share_prefixes=_shares_prefixes(job.settings),
            ),
            row_loss=row_loss,
            optimiser=learner.optimiser,
            schedule=schedule,
            max_gradient_norm=asked.max_gradient_norm,
            heldout=(lambda: heldout_loss(learner.model, heldout_rows)) if heldout_rows else None,
            evaluate_every=asked.evaluate_every or math.ceil(epoch_steps / 4),
            patience=asked.early_stop_patience,
            checkpoints=checkpoints,
            checkpoint_every=asked.checkpoint_every,
            recorder=recorder,
            watch=watch,
            asked_to_stop=asked_to_stop,
            progress=progress,
        )
    recorder.close()
    return outcome
