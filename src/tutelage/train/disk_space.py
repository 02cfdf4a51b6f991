"""Whether the disk has room for what a run will write, asked before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.distributed.process_group import ProcessGroup
from tutelage.errors import SaveError
from tutelage.report.numbers import byte_size
from tutelage.runs import folder as run_files


@dataclass(frozen=True, slots=True)
class DiskNeeds:
    """What a run writes that is large, in bytes.

    Attributes:
        weights: what is trained, as a checkpoint holds it; the model that is saved at the end is about as large.
        state: of the optimizer.
        keep: checkpoints that stay.
    """

    weights: int
    state: int
    keep: int

    @property
    def least(self) -> int:
        """One checkpoint, the best weights so far, and the model."""
        return 3 * self.weights + self.state

    @property
    def most(self) -> int:
        """Checkpoints that stay and the one that is being written, two sets of best weights likewise, and the model."""
        return (self.keep + 1) * (self.weights + self.state) + 3 * self.weights


def require_room(folder: Path, needs: DiskNeeds, process_group: ProcessGroup, *, log: Callable[[str], None]) -> None:
    """Say it where the disk may fill, and end where it will: found after hours, that costs the hours.

    Args:
        folder: of the run; the checkpoints that it has give way to new ones, so they count as free.
        needs: of the run.
        process_group: what one of them finds ends all.
        log: takes the note.

    Raises:
        SaveError: not even one checkpoint and the model have room.
    """
    free = shutil.disk_usage(folder).free + _bytes_in(folder / run_files.CHECKPOINTS)
    if process_group.any(free < needs.least):
        raise SaveError(
            "The disk has no room for what this run will write",
            where=str(folder),
            found=f"{byte_size(free)} free",
            expected=f"{byte_size(needs.least)} for a checkpoint, the best weights and the model; "
            f"{byte_size(needs.most)} with all that is kept at once",
            fix="free some space, or give another disk by folder=FOLDER",
        )
    if free < needs.most:
        log(
            f"  note: {byte_size(free)} are free in {folder}, and the checkpoints that train.keep_checkpoints = "
            f"{needs.keep} keeps, with the model, may take {byte_size(needs.most)}"
        )


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
