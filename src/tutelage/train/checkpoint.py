"""Checkpoints: everything a resume needs, written aside and renamed, so that a crash leaves the previous one whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException

from tutelage.errors import CheckpointError, SaveError, cause_of
from tutelage.model.ranks import ALONE, Ranks
from tutelage.train.masters import Masters
from tutelage.train.random_state import random_state, restore_random_state
from tutelage.train.shards import read_shards, write_shards

STATE_FILE = "state.json"
MASTERS_FILE = "masters.safetensors"
MOMENTS_FILE = "moments.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: steps done, the best held-out loss and its step, evaluations since then, tokens so far."""

    steps_done: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    tokens: int = 0
    trained_tokens: int = 0


class Checkpoints:
    """The checkpoint folder of a run.

    Args:
        folder: holds `step-000123/` for resuming and `best-000120/` with the weights of the best evaluation.
        keep: how many of the newest resumable checkpoints stay.
        ranks: processes that write and read together; several need one folder that all of them see.
    """

    def __init__(self, folder: Path, *, keep: int, ranks: Ranks = ALONE) -> None:
        self.folder = folder
        self.keep = keep
        self.ranks = ranks

    def save(self, optimiser: Masters, progress: Progress) -> Path:
        """Write a checkpoint that resumes after `progress.steps_done` steps.

        Raises:
            SaveError: the disk is full or refuses; earlier checkpoints are untouched.
        """
        tensors = {
            MASTERS_FILE: optimiser.masters,
            MOMENTS_FILE: optimiser.state() | random_state(self.ranks),
        }
        target = self.folder / f"step-{progress.steps_done:06d}"
        self._write(target, tensors, progress)
        self._delete(self._newest_first("step")[self.keep :])
        return target

    def save_best(self, optimiser: Masters, progress: Progress) -> None:
        """Write the weights of the best evaluation so far.

        Raises:
            SaveError: the disk is full or refuses; the previous best is untouched.
        """
        self._write(self.folder / f"best-{progress.steps_done:06d}", {MASTERS_FILE: optimiser.masters}, progress)
        self._delete(self._newest_first("best")[1:])

    def restore_newest(self, optimiser: Masters) -> Progress:
        """Load the newest whole checkpoint into `optimiser` and its model.

        Raises:
            CheckpointError: there is none, or the newest is damaged; the error names the next one.
        """
        found = self._newest_first("step")
        if not found:
            raise CheckpointError(
                "There is no checkpoint to resume from",
                where=str(self.folder),
                expected="step-000001 or later",
                fix="start the run again without --resume",
            )
        masters, moments, progress = self._read(found[0], optimiser, others=[one.name for one in found[1:]])
        restore_random_state(moments, self.ranks)
        optimiser.restore(masters, moments)
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
        masters, _, progress = self._read(found[0], optimiser, others=[])
        optimiser.restore_masters(masters)
        return progress

    def forget_best(self) -> None:
        """Delete the best weights, once the run's model folder holds the same."""
        self._delete(self._newest_first("best"))

    def _newest_first(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*"), reverse=True)

    def _delete(self, old: list[Path]) -> None:
        if self.ranks.is_main:
            for one in old:
                shutil.rmtree(one)

    def _write(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        if self.ranks.size > 1:
            self._write_together(target, tensors, progress)
            return
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
            _seal(scratch, target, hashes, progress)
        except (OSError, SafetensorError) as error:  # a full disk reaches us as either
            raise _not_saved(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_together(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        """Every process writes what it keeps; the main one makes the folder and gives it its name."""
        scratch = target.with_name(f".{target.name}-shards")
        ranks, trouble = self.ranks, ""
        if ranks.any(ranks.is_main and target.exists()):
            return
        try:
            if ranks.is_main:
                shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was killed
                scratch.mkdir(parents=True)
        except OSError as error:
            trouble = cause_of(error)
        self._all_well(target, trouble)
        try:
            write_shards(scratch, {name: one for group in tensors.values() for name, one in group.items()})
            names = sorted(one.name for one in scratch.iterdir())[ranks.rank :: ranks.size]
            hashes = {name: _sha256_and_sync(scratch / name) for name in names}
        except (OSError, SafetensorError, CheckpointException) as error:
            trouble, hashes = _why(error), {}
        gathered = {name: one for of_one in ranks.gather(hashes) for name, one in of_one.items()}
        try:
            self._all_well(target, trouble)
            if ranks.is_main:
                _seal(scratch, target, gathered, progress)
        except OSError as error:
            trouble = cause_of(error)
        finally:
            if ranks.is_main:
                shutil.rmtree(scratch, ignore_errors=True)
        self._all_well(target, trouble)

    def _all_well(self, target: Path, trouble: str) -> None:
        """Raise on every process what went wrong on one of them."""
        if found := next(filter(None, self.ranks.gather(trouble)), None):
            raise _not_saved(target, OSError(found))

    def _read(
        self, folder: Path, optimiser: Masters, *, others: list[str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Progress]:
        """Masters, what else there is, and the progress; the bytes are checked first, by every process a share."""
        wrong: Exception | None = None
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            for name, expected in sorted(state["sha256"].items())[self.ranks.rank :: self.ranks.size]:
                found = _sha256_and_sync(folder / name)
                if found != expected:
                    raise ValueError(f"{name} has sha256 {found[:12]}, expected {expected[:12]}")
            progress = Progress(**state["progress"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong = error
        if trouble := next(filter(None, self.ranks.gather("" if wrong is None else str(wrong))), None):
            fix = f"remove {folder.name} and resume again, which takes {others[0]}" if others else "start the run again"
            raise CheckpointError(
                "The checkpoint is damaged", where=str(folder), found=trouble, expected="whole files", fix=fix
            ) from wrong
        tensors = read_shards(folder, optimiser.masters, self.ranks)
        moments = {name: tensors.pop(name) for name in [*tensors] if ":" in name}
        return tensors, moments, progress


def _seal(scratch: Path, target: Path, hashes: dict[str, str], progress: Progress) -> None:
    """Write what is in the folder, then give it its name."""
    state = scratch / STATE_FILE
    state.write_text(json.dumps({"progress": asdict(progress), "sha256": hashes}, indent=1), encoding="utf-8")
    _sha256_and_sync(state)
    os.replace(scratch, target)


def _sha256_and_sync(path: Path) -> str:
    with path.open("rb+") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return digest


def _why(error: OSError | SafetensorError | CheckpointException) -> str:
    """What went wrong on the first process on which something did."""
    if isinstance(error, CheckpointException):
        first, _ = next(iter(error.failures.values()))
        return str(first).strip().split("\n")[0]
    return cause_of(error)


def _not_saved(target: Path, error: Exception) -> SaveError:
    return SaveError(
        "The checkpoint could not be saved; earlier ones are untouched",
        where=str(target),
        found=cause_of(error),
        fix="free some space, then resume the run",
    )
