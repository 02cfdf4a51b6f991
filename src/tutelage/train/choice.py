"""The checkpoint that a run ends with: that of the lowest held-out loss, or what people or a judge preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.optim.master_weights import MasterWeights
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.choice import CheckpointChoice, read_choice, write_choice
from tutelage.runs.lock import locked
from tutelage.train.checkpoint import Checkpoints, Progress


def restore_ending_weights(
    folder: Path, checkpoints: Checkpoints, optimizer: MasterWeights, progress: Progress
) -> int | None:
    """Load the weights that a run ends with, behind its last step.

    Args:
        folder: of the run.
        checkpoints: its own.
        optimizer: has the weights of the last step.
        progress: after the last step.

    Returns:
        the step that was chosen, where somebody chose; None where held-out loss decides.

    Raises:
        CheckpointError: these weights, or what was chosen, are damaged or gone.
    """
    optimizer.adopt_average()
    choice = read_choice(folder)
    if choice is not None:
        if choice.step != progress.steps_done:
            checkpoints.restore_weights(optimizer, step=choice.step)
        return choice.step
    if progress.best_step is not None and progress.best_step != progress.steps_done:
        checkpoints.restore_best(optimizer, step=progress.best_step)
    return None


def ending_step(result: dict[str, Any]) -> int:
    """The step whose weights a finished run ended with, by its result."""
    return int(result.get("chosen_step") or heldout_step(result))


def heldout_step(result: dict[str, Any]) -> int:
    """The step that a finished run chose itself: of the lowest held-out loss, or without held-out rows the last."""
    return int(result["steps"] if result.get("best_step") is None else result["best_step"])


def put_choice(folder: Path, choice: CheckpointChoice, screen: Screen) -> bool:
    """Keep a choice; where the run ended with other weights, what it ended with is put aside, and it ends anew.

    Args:
        folder: of a finished run.
        choice: for it.
        screen: told what is put aside.

    Returns:
        whether the run has to be resumed, which saves and measures the chosen weights.

    Raises:
        EngineError: another process works in the folder.
        SaveError: the disk refuses; the same call goes on.
    """
    with locked(folder, log=screen.log):
        result = run_files.read_result(folder)
        ended_with = ending_step(result)
        write_choice(folder, choice)
        if ended_with == choice.step:
            return False
        aside = run_files.move_finished_aside(folder, steps=int(result["steps"]), weights_of=ended_with)
    screen.log(f"What the run ended with, step {ended_with}, is now in {aside}")
    return True
