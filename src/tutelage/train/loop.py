"""The training loop: one function, the same for every method, precision and device.

Read it from top to bottom: batches come in, each row's summed loss is divided by the batch's one count and sent
backward, the optimizer steps, and every so often the model is measured and saved. A step that memory is too small for
starts again with smaller rows (`out_of_memory.try_step`); one that would spoil the weights is not taken, and ends the
run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
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
from tutelage.train.out_of_memory import try_step
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


def train(
    model: Any,
    batches: Iterable[Batch],
    *,
    row_loss: RowLoss,
    optimizer: MasterWeights,
    schedule: LRSchedule,
    max_grad_norm: float,
    heldout: Callable[[], float] | None,
    cadence: Cadence,
    checkpoints: Checkpoints,
    listener: Listener,
    progress: Progress,
    process_group: ProcessGroup = SINGLE,
    spike_guard: SpikeGuard | None = None,
    training_loss: TrainingLoss = "cross_entropy",
    held: HeldToBase | None = None,
    intermediate: Intermediate | None = None,
) -> Outcome:
    """Train until the batches end, held-out loss stops improving, too much is forgotten, or a stop is asked for.

    A checkpoint is left in any case.

    Args:
        model: computes; its parameters are written by `optimizer` only.
        batches: from step `progress.steps_done` on.
        row_loss: (model, row) -> (summed loss, trained tokens).
        optimizer: owns the master weights.
        schedule: learning rate by step; at the end of each earlier length patience is counted anew.
        max_grad_norm: gradients longer than this are scaled down to it.
        heldout: mean loss on held-out rows, or None.
        cadence: when to evaluate and save, and when to give up.
        checkpoints: where to save.
        listener: told of each step and evaluation, and asked once a step whether to stop.
        progress: where the run stands; zero for a new one.
        process_group: the processes that share every batch; each gets the same number of rows of it.
        spike_guard: says which loss is too large to learn from; None lets every finite one through.
        training_loss: whose gradient is followed; the losses that are recorded and measured are cross-entropies.
        held: has the divergence from the base that `row_loss` met; None where it is not held to the base.
        intermediate: what else is measured while the model trains, and how much it may forget.

    Raises:
        TrainingError: the loss or gradient is not finite, or the loss a spike; the weights are those of the last good
            step, and saved. Or the held-out loss failed; what was learned before is saved.
        FitError: one example alone is too large for the memory; what was learned before it is saved.
        SaveError: a checkpoint could not be written.
    """
    step_seconds, saved_at = 0.0, -1
    progress = keep_start(intermediate, _patient_anew(progress, schedule), optimizer=optimizer, checkpoints=checkpoints)
    ended: Ending = "early_stop" if _is_out(progress, cadence) else "finished"  # of a run killed after its last step
    model.train()
    for batch in batches if ended == "finished" else ():
        started = time.perf_counter()
        rng_before = rng_state()

        # 1. Forward and backward, row by row; where memory runs out, once more with smaller rows.
        weighted_loss = _weighting(row_loss, training_loss, progress)
        rows, sums, progress = try_step(
            batch,
            partial(_forward_backward, model, weighted_loss, held, batch.trained_tokens),
            rng=rng_before,
            progress=progress,
            optimizer=optimizer,
            checkpoints=checkpoints,
            listener=listener,
            process_group=process_group,
        )

        # 2. The loss of the whole batch: one sum over all processes, divided by one count.
        losses = [row.loss for row in sums]
        loss_sum, tokens, divergence, held_weight = process_group.sum(
            sum(losses), batch.tokens, sum(row.divergence for row in sums), sum(row.held_weight for row in sums)
        )
        loss = loss_sum / batch.trained_tokens

        # 3. The optimizer's step, unless it would spoil the weights: then the run ends before it.
        learning_rate = schedule.rate(batch.step)
        spike = spike_guard is not None and spike_guard.is_spike(loss, progress.recent_losses)
        norm = math.nan
        if math.isfinite(loss) and not spike:
            norm = optimizer.step(learning_rate, max_grad_norm=max_grad_norm)
        if not math.isfinite(norm):
            restore_rng_state(rng_before)
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

        # 4. The record.
        seconds = time.perf_counter() - started
        step_seconds += seconds
        progress = replace(
            progress,
            steps_done=batch.step + 1,
            tokens=progress.tokens + int(tokens),
            trained_tokens=progress.trained_tokens + batch.trained_tokens,
            recent_losses=_remembered(loss, progress, spike_guard, training_loss),
        )
        listener.tell(
            StepRecord(
                progress.steps_done, batch.epoch, loss, learning_rate, norm, int(tokens), batch.trained_tokens,
                tokens / seconds, listener.elapsed_seconds, peak_bytes(),
                divergence=divergence / held_weight if held_weight else None,
            )
        )  # fmt: skip
        if progress.steps_done % TRIM_EVERY_STEPS == 0:
            trim_heap()

        # 5. The held-out loss, where it is due; the best weights so far are kept.
        stop = process_group.any(listener.asked_to_stop())
        is_last = schedule.is_end(progress.steps_done)
        if heldout is not None and (is_last or progress.steps_done % cadence.evaluate_every == 0):
            heldout_loss = _measured(heldout, optimizer, progress, checkpoints)
            model.train()
            listener.tell(HeldoutRecord(progress.steps_done, heldout_loss, listener.elapsed_seconds))
            progress = _best_so_far(heldout_loss, optimizer, progress, checkpoints)

        # 6. Task, general set and divergence, where they are due; the weights that forgot little enough are kept.
        progress = measured_where_due(
            intermediate, model, progress, optimizer=optimizer, checkpoints=checkpoints, listener=listener
        )

        # 7. The checkpoint, where it is due; and whether this was the last step.
        progress = _patient_anew(progress, schedule)
        if stop or _is_out(progress, cadence):
            ended = "interrupted" if stop else "early_stop"
        if cadence.checkpoint_every is not None and progress.steps_done % cadence.checkpoint_every == 0:
            checkpoints.save(optimizer, progress)
            saved_at = progress.steps_done
        if ended != "finished":
            break
    if saved_at != progress.steps_done:
        checkpoints.save(optimizer, progress)
    return Outcome(progress, ended, step_seconds)


def _forward_backward(
    model: Any, row_loss: RowLoss, held: HeldToBase | None, trained_tokens: int, row: PackedSequence
) -> RowSums:
    """One row, whose activations go when this ends, also by an error."""
    row_sum, _ = row_loss(model, row)
    (row_sum / trained_tokens).backward()
    return RowSums(row_sum.item(), *((0.0, 0.0) if held is None else held.measured.take()))


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
