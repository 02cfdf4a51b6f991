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
from safetensors.torch import load_file, save_file

from tutelage.errors import CheckpointError, SaveError, cause_of
from tutelage.train.masters import Masters

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
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, optimiser: Masters, progress: Progress) -> Path:
        """Write a checkpoint that resumes after `progress.steps_done` steps.

        Raises:
            SaveError: the disk is full or refuses; earlier checkpoints are untouched.
        """
        tensors = {
            MASTERS_FILE: optimiser.masters,
            MOMENTS_FILE: optimiser.state() | {"random:cpu": torch.get_rng_state()},
        }
        target = self.folder / f"step-{progress.steps_done:06d}"
        self._write(target, tensors, progress)
        for old in self._newest_first("step")[self.keep :]:
            shutil.rmtree(old)
        return target

    def save_best(self, optimiser: Masters, progress: Progress) -> None:
        """Write the weights of the best evaluation so far.

        Raises:
            SaveError: the disk is full or refuses; the previous best is untouched.
        """
        self._write(self.folder / f"best-{progress.steps_done:06d}", {MASTERS_FILE: dict(optimiser.kept)}, progress)
        for old in self._newest_first("best")[1:]:
            shutil.rmtree(old)

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
        tensors, progress = _read(found[0], others=[one.name for one in found[1:]])
        moments = tensors[MOMENTS_FILE]
        torch.set_rng_state(moments.pop("random:cpu"))
        optimiser.restore(tensors[MASTERS_FILE], moments)
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
            os.replace(scratch, target)
        except (OSError, SafetensorError) as error:  # a full disk reaches us as either
            raise _not_saved(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _read(folder: Path, *, others: list[str]) -> tuple[dict[str, dict[str, torch.Tensor]], Progress]:
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        tensors = {}
        for name, expected in state["sha256"].items():
            found = _sha256_and_sync(folder / name)
            if found != expected:
                raise ValueError(f"{name} has sha256 {found[:12]}, expected {expected[:12]}")
            tensors[name] = load_file(folder / name)
        return tensors, Progress(**state["progress"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        fix = f"remove {folder.name} and resume again, which takes {others[0]}" if others else "start the run again"
        raise CheckpointError(
            "The checkpoint is damaged", where=str(folder), found=str(error), expected="whole files", fix=fix
        ) from error


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
