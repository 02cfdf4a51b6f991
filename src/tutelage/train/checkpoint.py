"""Checkpoints: everything a resume needs, written aside and renamed, so that a crash leaves the previous one whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.errors import CheckpointError, SaveError, cause_of
from tutelage.train.folder import sync
from tutelage.train.masters import Masters
from tutelage.train.random_state import PREFIX, random_state, restore_random_state

STATE_FILE = "state.json"
MASTERS_FILE = "masters.safetensors"
MOMENTS_FILE = "moments.safetensors"
_DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError)
"""What reading a damaged checkpoint raises, whichever byte is wrong."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: steps done, the best held-out loss and its step, evaluations since then, tokens so far.

    `row_tokens` is the budget of a row once memory ran out, None before; `recent_losses` are those that the next step's
    is held against (`SpikeGuard`), oldest first.
    """

    steps_done: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    row_tokens: int | None = None
    recent_losses: Sequence[float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "recent_losses", tuple(self.recent_losses))  # JSON knows lists only


class Checkpoints:
    """The checkpoint folder of a run.

    Args:
        folder: holds `step-000123/` for resuming and `best-000120/` with the weights of the best evaluation.
        keep: how many of the newest resumable checkpoints stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, optimiser: Masters, progress: Progress, *, keep_older: bool = False) -> Path:
        """Write a checkpoint that resumes after `progress.steps_done` steps; older ones go, unless told to keep them.

        Raises:
            SaveError: the disk is full or refuses; earlier checkpoints are untouched.
        """
        tensors = {
            MASTERS_FILE: optimiser.masters,
            MOMENTS_FILE: optimiser.state() | random_state(),
        }
        target = self.folder / f"step-{progress.steps_done:06d}"
        self._write(target, tensors, progress)
        if not keep_older:
            for old in self._newest_first("step")[self.keep :]:
                shutil.rmtree(old)
        self._forget_bests()
        return target

    def save_best(self, optimiser: Masters, progress: Progress) -> None:
        """Write the weights of the best evaluation so far; earlier ones stay while a checkpoint counts on them.

        Raises:
            SaveError: the disk is full or refuses; the previous best is untouched.
        """
        self._write(self.folder / f"best-{progress.steps_done:06d}", {MASTERS_FILE: dict(optimiser.kept)}, progress)
        self._forget_bests()

    def restore_newest(self, optimiser: Masters, *, chosen: str | None = None) -> Progress:
        """Load the newest checkpoint, or the `chosen` one, into `optimiser` and its model.

        What was saved after it goes, as the run will come there again; so does what a killed process left half-written.

        Raises:
            CheckpointError: there is none, or it is damaged; the error names the newest whole one before it.
        """
        found = self._newest_first("step")
        if chosen is not None:
            found = _from(found, chosen, self.folder)
        if not found:
            raise CheckpointError(
                "There is no checkpoint to resume from",
                where=str(self.folder),
                expected="step-000001 or later",
                fix="start the run again without --resume",
            )
        tensors, progress = _read(found[0], others=found[1:])
        moments = tensors[MOMENTS_FILE]
        random = {name: moments.pop(name) for name in [*moments] if name.startswith(PREFIX)}
        optimiser.restore(tensors[MASTERS_FILE], moments)
        restore_random_state(random)
        self._forget_after(progress.steps_done)
        return progress

    def restore_best(self, optimiser: Masters) -> Progress:
        """Load the best weights into `optimiser` and its model; the moments stay as they are.

        Raises:
            CheckpointError: there are none, or they are damaged.
        """
        found = self._newest_first("best")
        if not found:
            raise CheckpointError(
                "The weights of the best evaluation are gone",
                where=str(self.folder),
                expected="best-000001 or later",
                fix="start the run again",
            )
        tensors, progress = _read(found[0], others=[])
        optimiser.restore_masters(tensors[MASTERS_FILE])
        return progress

    def forget_best(self) -> None:
        """Delete the best weights, once the run's model folder holds the same."""
        for old in self._newest_first("best"):
            shutil.rmtree(old)

    def _newest_first(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*"), reverse=True)

    def _forget_bests(self) -> None:
        """Delete all best weights but the newest and those that a checkpoint counts on, if the run goes on from it."""
        needed = set()
        for checkpoint in self._newest_first("step"):
            with suppress(*_DAMAGE):  # a damaged checkpoint counts on nothing
                best = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["progress"]["best_step"]
                needed.add(f"best-{best or 0:06d}")
        for old in self._newest_first("best")[1:]:
            if old.name not in needed:
                shutil.rmtree(old)

    def _forget_after(self, step: int) -> None:
        for kind in ("step", "best"):
            for later in self._newest_first(kind):
                if later.name > f"{kind}-{step:06d}":
                    shutil.rmtree(later)
            for scratch in self.folder.glob(f".{kind}-*"):
                shutil.rmtree(scratch, ignore_errors=True)

    def _write(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        if target.exists():  # a resumed run comes to the same step again, with the same bits
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=self.folder))
        except OSError as error:
            raise _not_saved(target, error) from error
        try:
            hashes = {}
            for name, group in tensors.items():
                save_file({key: value.contiguous() for key, value in group.items()}, scratch / name)
                hashes[name] = _sha256_and_sync(scratch / name)
            state = scratch / STATE_FILE
            state.write_text(json.dumps({"progress": asdict(progress), "sha256": hashes}, indent=1), encoding="utf-8")
            _sha256_and_sync(state)
            sync(scratch)
            os.replace(scratch, target)
            sync(self.folder)
        except (OSError, SafetensorError) as error:  # a full disk reaches us as either
            raise _not_saved(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _from(found: list[Path], chosen: str, folder: Path) -> list[Path]:
    """The chosen checkpoint and those before it, newest first."""
    names = [one.name for one in found]
    if chosen not in names:
        raise CheckpointError(
            f"There is no checkpoint '{chosen}'",
            where=str(folder),
            found=", ".join(names) or "no checkpoint",
            expected="one of these",
            fix="give --from one of them, or leave it out to go on from the newest",
        )
    return found[names.index(chosen) :]


def _read(folder: Path, *, others: list[Path]) -> tuple[dict[str, dict[str, torch.Tensor]], Progress]:
    try:
        state = _checked_state(folder)
        tensors = {name: load_file(folder / name) for name in state["sha256"]}
        return tensors, Progress(**state["progress"])
    except _DAMAGE as error:
        raise CheckpointError(
            "The checkpoint is damaged",
            where=str(folder),
            found=str(error),
            expected="whole files",
            fix=_instead(folder, others),
        ) from error


def _instead(damaged: Path, others: list[Path]) -> str:
    """The newest checkpoint before the damaged one that is whole, as something to do."""
    for other in others:
        with suppress(*_DAMAGE):
            _checked_state(other)
            return f"go on from the one before: tutelage train --resume {damaged.parent.parent} --from {other.name}"
    return "start the run again"


def _checked_state(folder: Path) -> dict[str, Any]:
    """What `state.json` says, once each file it names has the bytes that were written."""
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    for name, expected in state["sha256"].items():
        found = _sha256_and_sync(folder / name)
        if found != expected:
            raise ValueError(f"{name} has sha256 {found[:12]}, expected {expected[:12]}")
    return state


def _sha256_and_sync(path: Path) -> str:
    with path.open("rb+") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return digest


def _not_saved(target: Path, error: Exception) -> SaveError:
    return SaveError(
        "The checkpoint could not be saved; earlier ones are untouched",
        where=str(target),
        found=cause_of(error),
        fix="free some space, then resume the run",
    )
