"""The training loop: one function, the same for every method, precision and device.

Read it from top to bottom: batches come in, each row's summed loss is divided by the batch's one count and sent
backward, the optimiser steps, and every so often the model is tested on held-out rows and saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tutelage.errors import TrainingError
from tutelage.model.ranks import ALONE, Ranks
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.masters import Masters
from tutelage.train.memory import GIVE_BACK_EVERY_STEPS, give_back
from tutelage.train.record import HeldoutRecord, Recorder, StepRecord, peak_bytes
from tutelage.train.schedule import Schedule
from tutelage.types import Batch, Row

RowLoss = Callable[[Any, Row], tuple[torch.Tensor, int]]
Ending = Literal["finished", "early_stop", "interrupted"]
Watch = Callable[[StepRecord | HeldoutRecord], None]


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
    optimiser: Masters,
    schedule: Schedule,
    max_gradient_norm: float,
    heldout: Callable[[], float] | None,
    evaluate_every: int,
    patience: int | None,
    checkpoints: Checkpoints,
    checkpoint_every: int | None,
    recorder: Recorder,
    watch: Watch,
    asked_to_stop: Callable[[], bool],
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train until the batches end, held-out loss stops improving, or a stop is asked for; always leave a checkpoint.

    Args:
        model: computes; its parameters are written by `optimiser` only.
        batches: from step `progress.steps_done` on.
        row_loss: (model, row) -> (summed loss, trained tokens).
        optimiser: owns the master weights.
        schedule: learning rate by step.
        max_gradient_norm: gradients longer than this are scaled down to it.
        heldout: mean loss on held-out rows, or None.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        patience: evaluations without improvement before stopping; None never stops early.
        checkpoints: where to save.
        checkpoint_every: steps between checkpoints; None saves at the end only.
        recorder: receives a line for each step and evaluation.
        watch: told the same.
        asked_to_stop: looked at once a step.
        progress: where the run stands; zero for a new one.
        ranks: the processes that share every batch; each gets the same number of rows of it.

    Raises:
        TrainingError: the loss or gradient is not finite; the weights are those of the last good step.
        SaveError: a checkpoint could not be written.
    """
    began = time.perf_counter() - recorder.elapsed_before_seconds
    step_seconds, saved_at = 0.0, -1
    ended: Ending = "finished"
    model.train()
    for batch in batches:
        started = time.perf_counter()
        loss_sum = 0.0
        for row in batch.rows:
            row_sum, _ = row_loss(model, row)
            (row_sum / batch.trained_tokens).backward()
            loss_sum += row_sum.item()
        loss_sum, tokens = ranks.sum(loss_sum, batch.tokens)
        loss = loss_sum / batch.trained_tokens
        learning_rate = schedule.rate(batch.step)
        norm = optimiser.step(learning_rate, max_gradient_norm=max_gradient_norm) if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            raise _not_finite(batch, loss, norm, checkpoints, ranks)
        seconds = time.perf_counter() - started
        step_seconds += seconds
        progress = replace(
            progress,
            steps_done=batch.step + 1,
            tokens=progress.tokens + int(tokens),
            trained_tokens=progress.trained_tokens + batch.trained_tokens,
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
        recorder.write(record)
        watch(record)

        if progress.steps_done % GIVE_BACK_EVERY_STEPS == 0:
            give_back()
        stop = ranks.any(asked_to_stop())
        last = progress.steps_done == schedule.steps
        if heldout is not None and (last or progress.steps_done % evaluate_every == 0):
            value = heldout()
            model.train()
            finding = HeldoutRecord(progress.steps_done, value, time.perf_counter() - began)
            recorder.write(finding)
            watch(finding)
            if math.isfinite(value) and (progress.best_loss is None or value < progress.best_loss):
                progress = replace(progress, best_loss=value, best_step=progress.steps_done, evaluations_since_best=0)
                checkpoints.save_best(optimiser, progress)
            else:
                progress = replace(progress, evaluations_since_best=progress.evaluations_since_best + 1)
        if patience is not None and progress.evaluations_since_best >= patience:
            ended = "early_stop"
        if stop:
            ended = "interrupted"
        if checkpoint_every is not None and progress.steps_done % checkpoint_every == 0:
            checkpoints.save(optimiser, progress)
            saved_at = progress.steps_done
        if ended != "finished":
            break
    if saved_at != progress.steps_done:
        checkpoints.save(optimiser, progress)
    return Outcome(progress, ended, step_seconds)


def _not_finite(batch: Batch, loss: float, norm: float, checkpoints: Checkpoints, ranks: Ranks) -> TrainingError:
    of_each = ranks.gather([str(address) for row in batch.rows for address in row.addresses])
    addresses = [address for of_one in of_each for address in of_one]
    return TrainingError(
        f"Step {batch.step + 1} is not finite; the run stops here",
        where=", ".join(addresses[:4]) + (f" and {len(addresses) - 4} more rows" if len(addresses) > 4 else ""),
        found=f"loss {loss}, gradient norm {norm}",
        expected="finite numbers",
        fix=f"lower train.learning_rate, or look at these rows; checkpoints are in {checkpoints.folder}",
    )
