"""The training loop: one function, the same for every method, precision and device.

Read it from top to bottom: batches come in, each row's summed loss is divided by the batch's one count and sent
backward, the optimizer steps, and every so often the model is measured and saved. A step that memory is too small for
starts again with smaller rows (`out_of_memory.try_step`); one that would spoil the weights is not taken, and ends the
run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch

from tutelage.distributed.collective_errors import failures
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import TrainingError, TutelageError, cause_of, command
from tutelage.model.base_outputs import HeldToBase
from tutelage.model.token_weights import TokenWeights, TrainingLoss, token_weights_of
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.optim.master_weights import MasterWeights
from tutelage.runs.metrics_log import HeldoutRecord, StepRecord
from tutelage.system.hardware import peak_bytes
from tutelage.system.heap import TRIM_EVERY_STEPS, trim_heap
from tutelage.train.abort import abort_before_step
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.intermediate import Intermediate, keep_start, measured_where_due
from tutelage.train.listener import Listener
from tutelage.train.loss_spike import SpikeGuard
from tutelage.train.out_of_memory import Computed, try_step
from tutelage.train.rng_state import restore_rng_state, rng_state
from tutelage.types import Batch, PackedSequence

Ending = Literal["finished", "early_stop", "interrupted"]


class RowLoss(Protocol):
    """Computes rows."""

    def __call__(
        self, model: Any, row: PackedSequence, /, *, token_weights: TokenWeights | None = None
    ) -> tuple[torch.Tensor, int]:
        """The summed loss of a row, and of how many tokens; `token_weights` are given where a step has any."""


class RowSums(NamedTuple):
    """Of one row: its loss; where it is replayed and held to the base, its divergence and the weights of its tokens."""

    loss: float
    divergence: float
    held_weight: float


class Totals(NamedTuple):
    """Of one batch, over all processes: the summed loss, the tokens, the divergence and the weights it was taken at."""

    loss_sum: float
    tokens: float
    divergence: float
    held_weight: float


@dataclass(frozen=True, slots=True)
class Cadence:
    """When the loop does more than take a step.

    Attributes:
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints; None saves at the end only.
        patience: evaluations without improvement before stopping; None never stops early.
    """

    evaluate_every: int
    checkpoint_every: int | None = None
    patience: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended: where the run stands, why it stopped, and the seconds spent in steps alone."""

    progress: Progress
    ended: Ending
    step_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop works with, from its first step to its last.

    Attributes:
        model: computes; its parameters are written by `optimizer` only.
        row_loss: (model, row) -> (summed loss, trained tokens).
        optimizer: owns the master weights.
        schedule: learning rate by step; at the end of each earlier length patience is counted anew.
        max_grad_norm: gradients longer than this are scaled down to it.
        cadence: when to evaluate and save, and when to give up.
        checkpoints: where to save.
        listener: told of each step and evaluation, and asked once a step whether to stop.
        heldout: mean loss on held-out rows, or None.
        process_group: the processes that share every batch; each gets the same number of rows of it.
        spike_guard: says which loss is too large to learn from; None lets every finite one through.
        sums_loss: a step follows the sum of its tokens' losses, not their mean; what is recorded is the mean.
        training_loss: whose gradient is followed; the losses that are recorded and measured are cross-entropies.
        held: has the divergence from the base that `row_loss` met; None where it is not held to the base.
        intermediate: what else is measured while the model trains, and how much it may forget.
    """

    model: Any
    row_loss: RowLoss
    optimizer: MasterWeights
    schedule: LRSchedule
    max_grad_norm: float
    cadence: Cadence
    checkpoints: Checkpoints
    listener: Listener
    heldout: Callable[[], float] | None = None
    process_group: ProcessGroup = SINGLE
    spike_guard: SpikeGuard | None = None
    sums_loss: bool = False
    training_loss: TrainingLoss = "cross_entropy"
    held: HeldToBase | None = None
    intermediate: Intermediate | None = None


def train(parts: Parts, batches: Iterable[Batch], progress: Progress) -> Outcome:
    """Train until the batches end, held-out loss stops improving, too much is forgotten, or a stop is asked for.

    Args:
        parts: what the loop works with.
        batches: from step `progress.steps_done` on.
        progress: where the run stands; zero for a new one.

    Raises:
        TrainingError: the loss or gradient is not finite, or the loss a spike; or the held-out loss failed.
        FitError: one example alone is too large for the memory.
        SaveError: a checkpoint could not be written. In every other case one is left, of the last good step.
    """
    optimizer, checkpoints = parts.optimizer, parts.checkpoints
    step_seconds, saved_at = 0.0, -1
    progress = _patient_anew(progress, parts.schedule)
    progress = keep_start(parts.intermediate, progress, optimizer=optimizer, checkpoints=checkpoints)
    ended: Ending = "early_stop" if _is_out(progress, parts.cadence) else "finished"  # killed after its last step
    parts.model.train()
    for batch in batches if ended == "finished" else ():
        started, rng_before = time.perf_counter(), rng_state()

        # 1. Forward and backward, row by row; where memory runs out, once more with smaller rows.
        rows, sums, progress = _computed(parts, batch, rng_before, progress)

        # 2. The loss of the whole batch: one sum over all processes, divided by one count.
        totals = _totals(parts.process_group, batch, sums)
        loss = totals.loss_sum / batch.trained_tokens

        # 3. The optimizer's step, unless it would spoil the weights: then the run ends before it.
        norm = _step_norm(parts, loss, batch.step, progress)
        if not math.isfinite(norm):
            restore_rng_state(rng_before)
            raise _abort(parts, batch, rows, sums, loss=loss, norm=norm, progress=progress)

        # 4. The record.
        seconds = time.perf_counter() - started
        step_seconds += seconds
        progress = _recorded(parts, batch, totals, loss=loss, norm=norm, seconds=seconds, progress=progress)

        # 5. The held-out loss, where it is due; the best weights so far are kept.
        stop = parts.process_group.any(parts.listener.asked_to_stop())
        progress = _heldout_where_due(parts, progress)

        # 6. Task, general set and divergence, where they are due; the weights that forgot little enough are kept.
        progress = _intermediate_where_due(parts, progress)

        # 7. The checkpoint, where it is due; and whether this was the last step.
        progress = _patient_anew(progress, parts.schedule)
        if stop or _is_out(progress, parts.cadence):
            ended = "interrupted" if stop else "early_stop"
        if parts.cadence.checkpoint_every is not None and progress.steps_done % parts.cadence.checkpoint_every == 0:
            checkpoints.save(optimizer, progress)
            saved_at = progress.steps_done
        if ended != "finished":
            break
    if saved_at != progress.steps_done:
        checkpoints.save(optimizer, progress)
    return Outcome(progress, ended, step_seconds)


def _computed(parts: Parts, batch: Batch, rng: dict[str, Any], progress: Progress) -> Computed[RowSums]:
    """The gradients of the batch, in as many rows as the memory makes necessary."""
    weighted_loss = _weighting(parts.row_loss, parts.training_loss, progress)
    divisor = 1 if parts.sums_loss else batch.trained_tokens
    return try_step(
        batch,
        partial(_forward_backward, parts.model, weighted_loss, parts.held, divisor),
        rng=rng,
        progress=progress,
        optimizer=parts.optimizer,
        checkpoints=parts.checkpoints,
        listener=parts.listener,
        process_group=parts.process_group,
    )


def _totals(process_group: ProcessGroup, batch: Batch, sums: Sequence[RowSums]) -> Totals:
    """The sums of this process's rows, added over all processes."""
    return Totals(
        *process_group.sum(
            sum(row.loss for row in sums),
            batch.tokens,
            sum(row.divergence for row in sums),
            sum(row.held_weight for row in sums),
        )
    )


def _is_spike(parts: Parts, loss: float, progress: Progress) -> bool:
    return parts.spike_guard is not None and parts.spike_guard.is_spike(loss, progress.recent_losses)


def _step_norm(parts: Parts, loss: float, step: int, progress: Progress) -> float:
    """The optimizer's step, and the gradient's norm before clipping; NaN where the loss keeps the step from being."""
    if not math.isfinite(loss) or _is_spike(parts, loss, progress):
        return math.nan
    return parts.optimizer.step(parts.schedule.rate(step), max_grad_norm=parts.max_grad_norm)


def _abort(
    parts: Parts,
    batch: Batch,
    rows: Sequence[PackedSequence],
    sums: Sequence[RowSums],
    *,
    loss: float,
    norm: float,
    progress: Progress,
) -> TrainingError:
    """What ends the run before a step that would spoil the weights; the last good state is saved."""
    return abort_before_step(
        batch,
        rows,
        [row.loss for row in sums],
        norm=norm,
        progress=progress,
        optimizer=parts.optimizer,
        checkpoints=parts.checkpoints,
        spike=_is_spike(parts, loss, progress),
        process_group=parts.process_group,
    )


def _recorded(
    parts: Parts, batch: Batch, totals: Totals, *, loss: float, norm: float, seconds: float, progress: Progress
) -> Progress:
    """The progress with this step, which the listener is told of; memory that is free goes back now and then."""
    progress = replace(
        progress,
        steps_done=batch.step + 1,
        tokens=progress.tokens + int(totals.tokens),
        trained_tokens=progress.trained_tokens + batch.trained_tokens,
        recent_losses=_remembered(loss, progress, parts.spike_guard, parts.training_loss),
    )
    parts.listener.tell(
        StepRecord(
            progress.steps_done, batch.epoch, loss, parts.schedule.rate(batch.step), norm, int(totals.tokens),
            batch.trained_tokens, totals.tokens / seconds, parts.listener.elapsed_seconds, peak_bytes(),
            divergence=totals.divergence / totals.held_weight if totals.held_weight else None,
        )
    )  # fmt: skip
    if progress.steps_done % TRIM_EVERY_STEPS == 0:
        trim_heap()
    return progress


def _heldout_where_due(parts: Parts, progress: Progress) -> Progress:
    """The progress after the held-out loss was measured, if it is due; the last step is always measured."""
    is_due = parts.schedule.is_end(progress.steps_done) or progress.steps_done % parts.cadence.evaluate_every == 0
    if parts.heldout is None or not is_due:
        return progress
    heldout_loss = _measured(parts.heldout, parts.optimizer, progress, parts.checkpoints)
    parts.model.train()
    parts.listener.tell(HeldoutRecord(progress.steps_done, heldout_loss, parts.listener.elapsed_seconds))
    return _best_so_far(heldout_loss, parts.optimizer, progress, parts.checkpoints)


def _forward_backward(
    model: Any, row_loss: RowLoss, held: HeldToBase | None, divisor: int, row: PackedSequence
) -> RowSums:
    """One row, whose activations go when this ends, also by an error."""
    row_sum, _ = row_loss(model, row)
    (row_sum / divisor).backward()
    return RowSums(row_sum.item(), *((0.0, 0.0) if held is None else held.measured.take()))


def _intermediate_where_due(parts: Parts, progress: Progress) -> Progress:
    return measured_where_due(
        parts.intermediate,
        parts.model,
        progress,
        optimizer=parts.optimizer,
        checkpoints=parts.checkpoints,
        listener=parts.listener,
    )


def _weighting(row_loss: RowLoss, training_loss: TrainingLoss, progress: Progress) -> RowLoss:
    """As it is for cross-entropy; else with the weights that a step after `progress` gives its tokens."""
    token_weights = token_weights_of(training_loss, progress.recent_losses)
    return row_loss if token_weights is None else partial(row_loss, token_weights=token_weights)


def _remembered(
    loss: float, progress: Progress, spike_guard: SpikeGuard | None, training_loss: TrainingLoss
) -> tuple[float, ...]:
    """The losses that the next step looks back at: those of the guard, and the last one for TALR's temperature."""
    if spike_guard is not None:
        return spike_guard.remembered(loss, progress.recent_losses)
    return (loss,) if training_loss == "talr" else ()


def _is_out(progress: Progress, cadence: Cadence) -> bool:
    out_of_patience = cadence.patience is not None and progress.evaluations_since_best >= cadence.patience
    return out_of_patience or progress.forgot_step is not None


def _patient_anew(progress: Progress, schedule: LRSchedule) -> Progress:
    """What ended a length may be followed by another: a run that goes on there, or comes by again, does not end."""
    if not schedule.was_extended_at(progress.steps_done):
        return progress
    return replace(progress, evaluations_since_best=0, forgot_step=None)


def _best_so_far(
    heldout_loss: float, optimizer: MasterWeights, progress: Progress, checkpoints: Checkpoints
) -> Progress:
    """The progress with this held-out loss; weights that are better than all before are kept."""
    if not math.isfinite(heldout_loss) or (progress.best_loss is not None and heldout_loss >= progress.best_loss):
        return replace(progress, evaluations_since_best=progress.evaluations_since_best + 1)
    progress = replace(progress, best_loss=heldout_loss, best_step=progress.steps_done, evaluations_since_best=0)
    checkpoints.save_best(optimizer, progress)
    return progress


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
