"""The training loop: one function, the same for every method, precision and device.

Read it from top to bottom: batches come in, each row's summed loss is divided by the batch's one count and sent
backward, the optimizer steps, and every so often the model is tested on held-out rows and saved. A step that memory is
too small for starts again with smaller rows; one that would spoil the weights is not taken, and ends the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tutelage.distributed.collective_errors import failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import TrainingError, TutelageError, cause_of, command
from tutelage.model.heap import TRIM_EVERY_STEPS, trim_heap
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack.splitting import split_rows
from tutelage.runs.metrics_log import HeldoutRecord, Record, Recorder, RowsRecord, StepRecord
from tutelage.system.hardware import peak_bytes
from tutelage.train.abort import abort_before_step, abort_out_of_memory, abort_out_of_memory_on_rank
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.loss_spike import SpikeGuard
from tutelage.train.rng_state import restore_rng_state, rng_state
from tutelage.types import Batch, PackedSequence

RowLoss = Callable[[Any, PackedSequence], tuple[torch.Tensor, int]]
Ending = Literal["finished", "early_stop", "interrupted"]
Watch = Callable[[Record], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended: where the run stands, why it stopped, and the seconds spent in steps alone."""

    progress: Progress
    ended: Ending
    step_seconds: float


def train(  # noqa: C901, PLR0912, PLR0915 one function that can be read aloud, rather than a loop behind hooks
    model: Any,
    batches: Iterable[Batch],
    *,
    row_loss: RowLoss,
    optimizer: MasterWeights,
    schedule: LRSchedule,
    max_grad_norm: float,
    heldout: Callable[[], float] | None,
    evaluate_every: int,
    patience: int | None,
    checkpoints: Checkpoints,
    checkpoint_every: int | None,
    recorder: Recorder,
    watch: Watch,
    asked_to_stop: Callable[[], bool],
    progress: Progress,
    process_group: ProcessGroup = SINGLE,
    spike_guard: SpikeGuard | None = None,
) -> Outcome:
    """Train until the batches end, held-out loss stops improving, or a stop is asked for; always leave a checkpoint.

    Args:
        model: computes; its parameters are written by `optimizer` only.
        batches: from step `progress.steps_done` on.
        row_loss: (model, row) -> (summed loss, trained tokens).
        optimizer: owns the master weights.
        schedule: learning rate by step; at the end of each earlier length patience is counted anew.
        max_grad_norm: gradients longer than this are scaled down to it.
        heldout: mean loss on held-out rows, or None.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        patience: evaluations without improvement before stopping; None never stops early.
        checkpoints: where to save.
        checkpoint_every: steps between checkpoints; None saves at the end only.
        recorder: receives a line for each step and evaluation.
        watch: told the same.
        asked_to_stop: looked at once a step.
        progress: where the run stands; zero for a new one.
        process_group: the processes that share every batch; each gets the same number of rows of it.
        spike_guard: says which loss is too large to learn from; None lets every finite one through.

    Raises:
        TrainingError: the loss or gradient is not finite, or the loss a spike; the weights are those of the last good
            step, and saved. Or the held-out loss failed; what was learned before is saved.
        FitError: one example alone is too large for the memory; what was learned before it is saved.
        SaveError: a checkpoint could not be written.
    """
    began = time.perf_counter() - recorder.previous_elapsed_seconds
    step_seconds, saved_at = 0.0, -1
    progress = _patient_anew(progress, schedule)
    ended: Ending = "early_stop" if _is_out(progress, patience) else "finished"  # of a run killed after its last step
    model.train()
    for batch in batches if ended == "finished" else ():
        started = time.perf_counter()
        before = rng_state()
        while True:  # once, unless memory runs out
            rows = split_rows(batch.rows, progress.row_tokens)
            losses: list[float] = []
            try:
                for row in rows:
                    losses.append(_learn(model, row, row_loss, batch.trained_tokens))
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if process_group.size > 1:  # the others are in the middle of this row, and wait
                    raise abort_out_of_memory_on_rank(
                        batch, rows[len(losses)], process_group=process_group, checkpoints=checkpoints
                    ) from error
                failed = rows[len(losses)]
            # Not inside the except block: until it ends, the error keeps what the failed pass had allocated.
            optimizer.zero_gradients()
            restore_rng_state(dict(before))
            release_memory()
            if len(failed.addresses) <= 1:
                raise abort_out_of_memory(
                    batch, failed, progress=progress, optimizer=optimizer, checkpoints=checkpoints
                )
            row_tokens = len(failed.ids) // 2
            progress = replace(progress, row_tokens=row_tokens)
            smaller = RowsRecord(batch.step + 1, row_tokens, time.perf_counter() - began)
            _tell(smaller, recorder, watch)
        loss_sum, tokens = process_group.sum(sum(losses), batch.tokens)
        loss = loss_sum / batch.trained_tokens
        learning_rate = schedule.rate(batch.step)
        spike = spike_guard is not None and spike_guard.is_spike(loss, progress.recent_losses)
        norm = math.nan
        if math.isfinite(loss) and not spike:
            norm = optimizer.step(learning_rate, max_grad_norm=max_grad_norm)
        if not math.isfinite(norm):
            restore_rng_state(before)
            raise abort_before_step(
                batch,
                rows,
                losses,
                norm=norm,
                progress=progress,
                optimizer=optimizer,
                checkpoints=checkpoints,
                spike=spike,
                process_group=process_group,
            )
        seconds = time.perf_counter() - started
        step_seconds += seconds
        progress = replace(
            progress,
            steps_done=batch.step + 1,
            tokens=progress.tokens + int(tokens),
            trained_tokens=progress.trained_tokens + batch.trained_tokens,
            recent_losses=() if spike_guard is None else spike_guard.remembered(loss, progress.recent_losses),
        )
        record = StepRecord(
            step=progress.steps_done,
            epoch=batch.epoch,
            loss=loss,
            learning_rate=learning_rate,
            gradient_norm=norm,
            tokens=int(tokens),
            trained_tokens=batch.trained_tokens,
            tokens_per_second=tokens / seconds,
            elapsed_seconds=time.perf_counter() - began,
            peak_bytes=peak_bytes(),
        )
        _tell(record, recorder, watch)

        if progress.steps_done % TRIM_EVERY_STEPS == 0:
            trim_heap()
        stop = process_group.any(asked_to_stop())
        last = schedule.is_end(progress.steps_done)
        if heldout is not None and (last or progress.steps_done % evaluate_every == 0):
            value = _measured(heldout, optimizer, progress, checkpoints)
            model.train()
            finding = HeldoutRecord(progress.steps_done, value, time.perf_counter() - began)
            _tell(finding, recorder, watch)
            if math.isfinite(value) and (progress.best_loss is None or value < progress.best_loss):
                progress = replace(progress, best_loss=value, best_step=progress.steps_done, evaluations_since_best=0)
                checkpoints.save_best(optimizer, progress)
            else:
                progress = replace(progress, evaluations_since_best=progress.evaluations_since_best + 1)
        progress = _patient_anew(progress, schedule)
        if stop or _is_out(progress, patience):
            ended = "interrupted" if stop else "early_stop"
        if checkpoint_every is not None and progress.steps_done % checkpoint_every == 0:
            checkpoints.save(optimizer, progress)
            saved_at = progress.steps_done
        if ended != "finished":
            break
    if saved_at != progress.steps_done:
        checkpoints.save(optimizer, progress)
    return Outcome(progress, ended, step_seconds)


def _tell(record: Record, recorder: Recorder, watch: Watch) -> None:
    """To the disk first: what a watcher shows is recorded."""
    recorder.write(record)
    watch(record)


def _is_out(progress: Progress, patience: int | None) -> bool:
    return patience is not None and progress.evaluations_since_best >= patience


def _patient_anew(progress: Progress, schedule: LRSchedule) -> Progress:
    """Patience may have ended a length where another follows; a run that goes on there, or comes by again, does not."""
    return replace(progress, evaluations_since_best=0) if schedule.was_extended_at(progress.steps_done) else progress


def _measured(
    heldout: Callable[[], float], optimizer: MasterWeights, progress: Progress, checkpoints: Checkpoints
) -> float:
    """The held-out loss; where it fails, what was learned is saved before the error goes on."""
    try:
        return heldout()
    except failures(checkpoints.process_group) as error:
        checkpoints.save(optimizer, progress, keep_older=True)
        if isinstance(error, TutelageError):
            raise
        several = ("--processes", checkpoints.process_group.size) if checkpoints.process_group.size > 1 else ()
        again = command("train", "--resume", checkpoints.folder.parent, *several)
        raise TrainingError(
            f"The held-out loss could not be measured after step {progress.steps_done}; the run is saved, and ends",
            where=str(checkpoints.folder),
            found=cause_of(error),
            fix=f"go on without this measurement: {again}",
        ) from error


def _learn(model: Any, row: PackedSequence, row_loss: RowLoss, trained_tokens: int) -> float:
    """Forward and backward of one row, whose activations go when this ends, also by an error; gives the summed loss."""
    row_sum, _ = row_loss(model, row)
    (row_sum / trained_tokens).backward()
    return row_sum.item()
