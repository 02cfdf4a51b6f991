"""A run that has its result: what a resume of it still has to do, if anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage import report
from tutelage.config import TrainSettings
from tutelage.errors import CheckpointError, command
from tutelage.report.console.progress import Screen
from tutelage.report.html.page import FILE_NAME
from tutelage.runs import folder as run_files
from tutelage.runs.lock import locked
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.sharded_checkpoint import sha256_and_sync


def trained_sha256(folder: Path) -> dict[str, str]:
    """The hash of every file in the folder of what was trained, by its path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): sha256_and_sync(file) for file in files}


def require_unfinished(folder: Path, train: TrainSettings) -> None:
    """Refuse a resume of a run that has nothing left to do: it is at its end, and every measure is there.

    Args:
        folder: of the run.
        train: its `[train]`.

    Raises:
        CheckpointError: it is finished, or its result is damaged.
    """
    if not (folder / run_files.RESULT).is_file() or (result := run_files.read_result(folder)).get("unmeasured"):
        return
    length = f"train.epochs = {train.epochs:g}"
    if train.max_steps is not None:
        length += f" and train.max_steps = {train.max_steps}"
    why = "the held-out loss no longer improved" if result.get("stopped_early") else f"{length} asks for no more"
    if result.get("forgot_step") is not None:
        why = "it forgot too much of the general set"
    raise CheckpointError(
        "This run is finished; there is nothing to resume",
        where=str(folder),
        found=f"it ended after step {result.get('steps')}, as {why}",
        expected="a longer run",
        fix=f"train it on: {longer(folder, train)}",
    )


def longer(folder: Path, *lengths: TrainSettings) -> str:
    """The command that resumes a run with an epoch more than each of the lengths has, and no bound on its steps."""
    epochs = max(length.epochs for length in lengths) + 1
    is_bounded = any(length.max_steps is not None for length in lengths)
    unbound = ["train.max_steps="] if is_bounded else []
    return command("train", "--resume", folder, f"train.epochs={epochs:g}", *unbound)


def complete(folder: Path, screen: Screen) -> dict[str, Any] | None:
    """Do what a run was killed before: write its page, delete the best weights that its model folder holds.

    Returns:
        its result; None where it is not finished, or nothing of this is left to do.

    Raises:
        CheckpointError: its result is damaged.
        EngineError: another process works in the folder.
        SaveError: the disk is full or refuses.
    """
    if not (folder / run_files.RESULT).is_file() or run_files.read_result(folder).get("unmeasured"):
        return None
    result = run_files.read_result(folder)
    checkpoints = Checkpoints(folder / run_files.CHECKPOINTS, keep=1)
    # Others belong to the last checkpoint: a run that is given more epochs may still end with them.
    left_over = checkpoints.has_best() and result.get("best_step") == result.get("steps")
    if (folder / FILE_NAME).is_file() and not left_over:
        return None
    with locked(folder, log=screen.log):
        if left_over:
            checkpoints.forget_best()
        page = report.write(folder)
    screen.log(f"This run had its result and was ended before its page was written; now it is: {page}")
    return run_files.read_result(folder)
