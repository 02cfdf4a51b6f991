"""The model measured while it trains, and a run that ends where it forgot too much; training itself is untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tutelage.evaluate.intermediate import forgetting_now
from tutelage.optim.master_weights import MasterWeights
from tutelage.runs.intermediate import IntermediateMeasure
from tutelage.runs.metrics_log import MeasuredRecord
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.listener import Listener
from tutelage.train.rng_state import restore_rng_state, rng_state


@dataclass(frozen=True, slots=True)
class Intermediate:
    """When the loop measures more than the held-out loss, and what it does about what was forgotten.

    Attributes:
        steps: after which; counted from 1.
        measure: called with the steps done; measures the model, and must leave its weights as they are.
        most_forgotten: the share of the general set that may be lost; above it the run ends, with the weights of the
            last measurement before. None never ends it.
        log: told why it ends.
    """

    steps: frozenset[int]
    measure: Callable[[int], IntermediateMeasure]
    most_forgotten: float | None = None
    log: Callable[[str], None] = lambda _: None


def keep_start(
    intermediate: Intermediate | None, progress: Progress, *, optimizer: MasterWeights, checkpoints: Checkpoints
) -> Progress:
    """What a run that forgets too much at its first measurement ends with: the weights that it begins with."""
    if intermediate is None or intermediate.most_forgotten is None or progress.kept_step is not None:
        return progress
    progress = replace(progress, kept_step=progress.steps_done)
    checkpoints.save_best(optimizer, progress)
    return progress


def measured_where_due(
    intermediate: Intermediate | None,
    model: Any,
    progress: Progress,
    *,
    optimizer: MasterWeights,
    checkpoints: Checkpoints,
    listener: Listener,
) -> Progress:
    """Measure the model after this step, if it is one of those, and record it; random numbers go on as without.

    Returns:
        `progress`; with `kept_step` where the weights may be those that the run ends with, with `forgot_step` where it
        ends.
    """
    if intermediate is None or progress.steps_done not in intermediate.steps:
        return progress
    random_numbers = rng_state()
    measured = intermediate.measure(progress.steps_done)
    restore_rng_state(random_numbers)
    model.train()
    listener.tell(MeasuredRecord(progress.steps_done, measured, listener.elapsed_seconds))
    if intermediate.most_forgotten is None:
        return progress
    gate = forgetting_now(measured, intermediate.most_forgotten)
    if gate is None:
        intermediate.log(
            f"  note: after step {progress.steps_done} the general set could not be measured, so nothing is stopped"
        )
        return progress
    if gate.tripped_by is None:
        progress = replace(progress, kept_step=progress.steps_done)
        checkpoints.save_best(optimizer, progress)
        return progress
    kept = "those that it began with" if progress.kept_step == 0 else f"those of step {progress.kept_step}"
    intermediate.log(f"{gate.sentence}. Training ends after step {progress.steps_done}; the weights kept are {kept}")
    ended = replace(progress, forgot_step=progress.steps_done, evaluations_since_best=0)
    return replace(ended, best_step=progress.kept_step, best_loss=None)
