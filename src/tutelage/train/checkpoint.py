"""Checkpoints: everything a resume needs, written aside and renamed, so that a crash leaves the previous one whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import CheckpointError, SaveError, TrainingError, cause_of, command, remedy
from tutelage.optim.master_weights import MasterWeights, not_finite
from tutelage.system.files import apply_default_modes, publish
from tutelage.system.seals import sealed, unsealed
from tutelage.train.rng_state import PREFIX, restore_rng_state, rng_state
from tutelage.train.sharded_checkpoint import of_rank, read_shards, sha256_and_sync, with_rank, write_shards

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
        process_group: processes that write and read together, in one folder that all of them see.
    """

    def __init__(self, folder: Path, *, keep: int, process_group: ProcessGroup = SINGLE) -> None:
        self.folder = folder
        self.keep = keep
        self.process_group = process_group

    def save(self, optimizer: MasterWeights, progress: Progress, *, keep_older: bool = False) -> Path:
        """Write a checkpoint that resumes after `progress.steps_done` steps; older ones go, unless told to keep them.

        Raises:
            SaveError: the disk is full or refuses; earlier checkpoints are untouched.
        """
        tensors = {
            MASTERS_FILE: optimizer.masters,
            MOMENTS_FILE: optimizer.state() | with_rank(rng_state(), self.process_group),
        }
        target = self.folder / f"step-{progress.steps_done:06d}"
        self._write(target, tensors, progress)
        if not keep_older:
            self._delete(self._newest_first("step")[self.keep :])
        self._forget_bests()
        return target

    def save_best(self, optimizer: MasterWeights, progress: Progress) -> None:
        """Write the weights of the best evaluation so far; earlier ones stay while a checkpoint counts on them.

        Raises:
            SaveError: the disk is full or refuses; the previous best is untouched.
        """
        self._write(self.folder / f"best-{progress.steps_done:06d}", {MASTERS_FILE: dict(optimizer.kept)}, progress)
        self._forget_bests()

    def newest(self) -> str | None:
        """The name of the checkpoint that a resume would go on from; None where there is none."""
        return next(iter(self.names()), None)

    def names(self) -> list[str]:
        """The names of those that a resume can go on from, newest first."""
        return [one.name for one in self._newest_first("step")]

    def newest_to_oldest(self, *, chosen: str | None) -> list[Path]:
        """The checkpoints that a run can go on from: the newest or the `chosen` one, and those before it.

        Raises:
            CheckpointError: there is none, or none of that name.
        """
        found = self._newest_first("step")
        if chosen is not None:
            return _from(found, chosen, self.folder)
        if not found:
            raise CheckpointError(
                "There is no checkpoint to resume from",
                where=str(self.folder),
                expected="step-000001 or later",
                fix="start the run again without --resume",
            )
        return found

    def restore_newest(
        self, optimizer: MasterWeights, *, chosen: str | None = None, log: Callable[[str], None] = print
    ) -> Progress:
        """Load the newest checkpoint, or the `chosen` one, into `optimizer` and its model.

        What was saved after it goes, as the run will come there again; so does what a killed process left half-written.
        The best weights that it counts on are looked at too: a run that cannot end with them ends here, not after its
        last step. From a checkpoint that was `chosen` the run goes on without them, as the error offers.

        Args:
            optimizer: of the run, with the shapes it had.
            chosen: the name of a checkpoint.
            log: told when the run goes on without its best weights.

        Raises:
            CheckpointError: there is none, or it, or the best weights, are damaged; the error says how to go on.
        """
        found = self.newest_to_oldest(chosen=chosen)
        tensors, progress = self._read(found[0], optimizer, others=found[1:])
        random = {name: tensors.pop(name) for name in [*tensors] if name.startswith(PREFIX)}
        moments = {name: tensors.pop(name) for name in [*tensors] if ":" in name}
        optimizer.restore(tensors, moments)
        restore_rng_state(of_rank(random, self.process_group))
        self.process_group.wait_for_all()
        self._forget_after(progress.steps_done)
        wrong = self._best_damage(optimizer, progress)
        if wrong is None:
            return progress
        if chosen is None:
            raise self._no_best(self.folder / f"best-{progress.best_step:06d}", wrong)
        self._delete([one for one in self._newest_first("best") if one.name == f"best-{progress.best_step:06d}"])
        log(
            f"The best weights so far, of step {progress.best_step}, are left out ({wrong}): the best count anew; "
            "where no evaluation follows, the run ends with its last weights"
        )
        return replace(progress, best_step=None, best_loss=None)

    def _best_damage(self, optimizer: MasterWeights, progress: Progress) -> str | None:
        """What is wrong with the best weights that a checkpoint counts on; those just restored are written again."""
        if progress.best_step is None:
            return None
        folder = self.folder / f"best-{progress.best_step:06d}"
        wrong = self._damage(folder)
        if wrong is not None and progress.best_step == progress.steps_done:
            self._delete([folder] if folder.exists() else [])
            self.process_group.wait_for_all()
            self.save_best(optimizer, progress)
            return None
        return wrong

    def _no_best(self, folder: Path, wrong: str) -> CheckpointError:
        return CheckpointError(
            "The best weights so far are damaged, or gone",
            where=str(folder),
            found=wrong,
            expected="whole files",
            fix="go on without them: "
            + command("train", "--resume", self.folder.parent, "--from", self.newest() or "step-000001"),
        )

    def _damage(self, folder: Path) -> str | None:
        """What is wrong with a checkpoint; every process looks at a share of its files, and all get the answer."""
        found = ""
        try:
            _checked_state(folder, self.process_group)
        except _DAMAGE as error:
            found = str(error) or repr(error)
        return next(filter(None, self.process_group.gather(found)), None)

    def restore_best(self, optimizer: MasterWeights, *, step: int) -> Progress:
        """Load the best weights, of `step`, into `optimizer` and its model; the moments stay as they are.

        Raises:
            CheckpointError: they are gone, or damaged; the error says how to end without them.
        """
        folder = self.folder / f"best-{step:06d}"
        if (wrong := self._damage(folder)) is not None:
            raise self._no_best(folder, wrong)
        tensors, found = self._read(folder, optimizer, others=[])
        optimizer.restore_masters({name: one for name, one in tensors.items() if ":" not in name})
        return found

    def has_best(self) -> bool:
        """Whether there are best weights."""
        return bool(self._newest_first("best"))

    def forget_best(self) -> None:
        """Delete the best weights, once the run's model folder holds the same."""
        self._delete(self._newest_first("best"))

    def _newest_first(self, kind: str) -> list[Path]:
        begin = f"{kind}-"
        found = [path for path in self.folder.glob(f"{begin}*") if path.name.removeprefix(begin).isdecimal()]
        return sorted(found, key=lambda one: (len(one.name), one.name), reverse=True)

    def _forget_bests(self) -> None:
        """Delete all best weights but the newest and those that a checkpoint counts on, if the run goes on from it."""
        needed = set()
        for checkpoint in self._newest_first("step"):
            with suppress(*_DAMAGE):  # a damaged checkpoint counts on nothing
                best = _state(checkpoint)["progress"]["best_step"]
                needed.add(f"best-{best or 0:06d}")
        self._delete([old for old in self._newest_first("best")[1:] if old.name not in needed])

    def _forget_after(self, step: int) -> None:
        for kind in ("step", "best"):
            last = f"{kind}-{step:06d}"
            self._delete([one for one in self._newest_first(kind) if (len(one.name), one.name) > (len(last), last)])
            self._delete(list(self.folder.glob(f".{kind}-*")))

    def _delete(self, folders: list[Path]) -> None:
        if self.process_group.is_main:
            for folder in folders:
                shutil.rmtree(folder)

    def _write(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        self._require_finite(tensors[MASTERS_FILE])
        if self.process_group.size > 1:
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
                hashes[name] = sha256_and_sync(scratch / name)
            _seal(scratch, target, hashes, progress)
        except (OSError, SafetensorError) as error:  # a full disk reaches us as either
            raise _not_saved(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _require_finite(self, weights: Mapping[str, torch.Tensor]) -> None:
        found = next(filter(None, self.process_group.gather(not_finite(weights))), [])
        if found:
            good = self.newest()
            raise TrainingError(
                "The weights are no longer finite, so they are not saved",
                where=", ".join(found[:3]) + (f" and {len(found) - 3} more parameters" if len(found) > 3 else ""),
                found="NaN or infinity",
                expected="finite numbers" + ("" if good is None else f", as in {self.folder / good}, which stays"),
                fix="start a new run with a lower train.learning_rate",
            )

    def _write_together(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        """Every process writes what it keeps; the main one makes the folder and gives it its name."""
        process_group, scratch = self.process_group, target.with_name(f".{target.name}-shards")
        if process_group.any(process_group.is_main and target.exists()):
            return
        trouble: Exception | None = None
        hashes = {}
        try:
            if process_group.is_main:
                shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was killed
                scratch.mkdir(parents=True)
        except OSError as error:
            trouble = error
        self._all_well(target, trouble)
        try:
            hashes = write_shards(scratch, {name: one for group in tensors.values() for name, one in group.items()})
        except (OSError, SafetensorError) as error:
            trouble = error
        of_all = {name: one for of_one in process_group.gather(hashes) for name, one in of_one.items()}
        try:
            self._all_well(target, trouble)
            if process_group.is_main:
                _seal(scratch, target, of_all, progress)
        except SaveError:
            raise
        except OSError as error:
            trouble = error
        finally:
            if process_group.is_main:
                shutil.rmtree(scratch, ignore_errors=True)
        self._all_well(target, trouble)

    def _all_well(self, target: Path, trouble: Exception | None) -> None:
        """Raise on every process what went wrong on one of them."""
        number = trouble.errno if isinstance(trouble, OSError) else None
        mine = None if trouble is None else (number, cause_of(trouble))
        if found := next(filter(None, self.process_group.gather(mine)), None):
            raise _not_saved(target, OSError(found[1]) if found[0] is None else OSError(*found)) from trouble

    def _read(
        self, folder: Path, optimizer: MasterWeights, *, others: list[Path]
    ) -> tuple[dict[str, torch.Tensor], Progress]:
        """All tensors and the progress, the bytes checked first, by every process a share."""
        wrong: Exception | None = None
        try:
            state = _checked_state(folder, self.process_group)
            progress = Progress(**state["progress"])
        except _DAMAGE as error:
            wrong = error
        found = next(filter(None, self.process_group.gather("" if wrong is None else str(wrong) or repr(wrong))), None)
        if found is not None:
            raise CheckpointError(
                "The checkpoint is damaged",
                where=str(folder),
                found=found,
                expected="whole files",
                fix=_instead(folder, others),
            ) from wrong
        if self.process_group.size > 1 or not {MASTERS_FILE, MOMENTS_FILE} & set(state["sha256"]):
            return read_shards(folder, optimizer.masters, self.process_group), progress
        return {key: one for name in state["sha256"] for key, one in load_file(folder / name).items()}, progress


def _seal(scratch: Path, target: Path, hashes: dict[str, str], progress: Progress) -> None:
    """Say in the folder what is in it, then give it its name."""
    state = scratch / STATE_FILE
    state.write_text(sealed({"progress": asdict(progress), "sha256": hashes}), encoding="utf-8")
    sha256_and_sync(state)
    apply_default_modes(scratch)
    publish(scratch, target)


def _from(found: list[Path], chosen: str, folder: Path) -> list[Path]:
    """The chosen checkpoint and those before it, newest first."""
    names = [one.name for one in found]
    if chosen not in names:
        raise CheckpointError(
            f"There is no checkpoint '{chosen}'",
            where=str(folder),
            found=", ".join(names) or "no checkpoint",
            expected="one of these" if names else "step-000001 or later",
            fix=command("train", "--resume", folder.parent, "--from", names[0])
            if names
            else "start the run again without --resume",
        )
    return found[names.index(chosen) :]


def _instead(damaged: Path, others: list[Path]) -> str:
    """The newest checkpoint before the damaged one that is whole, as something to do."""
    for other in others:
        with suppress(*_DAMAGE):
            best = _checked_state(other)["progress"]["best_step"]
            if best is not None and best != int(other.name.partition("-")[2]):
                _checked_state(other.with_name(f"best-{best:06d}"))
            again = command("train", "--resume", damaged.parent.parent, "--from", other.name)
            return f"go on from the one before: {again}"
    return "start the run again"


def _state(folder: Path) -> dict[str, Any]:
    """What `state.json` says, once it is as it was written, and of this folder."""
    state = unsealed((folder / STATE_FILE).read_bytes())
    named = int(folder.name.partition("-")[2])
    if (done := state["progress"]["steps_done"]) != named:
        raise ValueError(f"{STATE_FILE} is of step {done}, and the folder of step {named}")
    if not state["sha256"]:
        raise ValueError(f"{STATE_FILE} names no file")
    return state


def _checked_state(folder: Path, process_group: ProcessGroup = SINGLE) -> dict[str, Any]:
    """What `state.json` says, once each file it names, or this process's share of them, has the bytes written."""
    state = _state(folder)
    if odd := sorted({path.name for path in folder.glob("*.safetensors")} - set(state["sha256"])):
        raise ValueError(f"{odd[0]} is no file of this checkpoint")
    for name, expected in sorted(state["sha256"].items())[process_group.rank :: process_group.size]:
        found = sha256_and_sync(folder / name)
        if found != expected:
            raise ValueError(f"{name} has sha256 {found[:12]}, expected {expected[:12]}")
    return state


def _not_saved(target: Path, error: Exception) -> SaveError:
    earlier = any(target.parent.glob("step-*"))
    return SaveError(
        "The checkpoint could not be saved" + ("; earlier ones are untouched" if earlier else ""),
        where=str(target),
        found=cause_of(error),
        fix=f"{remedy(error)}, then {'resume the run' if earlier else 'start the run again'}",
    )
