"""Checkpoints: everything a resume needs, written aside and renamed, so that a crash leaves the previous one whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import CheckpointError, SaveError, TrainingError, cause_of, command
from tutelage.optim.master_weights import AVERAGE, MasterWeights, non_finite_names
from tutelage.train.checkpoint_files import (
    DAMAGE,
    checked_state,
    checkpoint_save_error,
    chosen_and_older,
    older_checkpoint_remedy,
    seal_checkpoint,
    state_of,
)
from tutelage.train.rng_state import PREFIX, restore_rng_state, rng_state
from tutelage.train.sharded_checkpoint import of_rank, read_shards, sha256_and_sync, with_rank, write_shards

MASTERS_FILE = "masters.safetensors"
MOMENTS_FILE = "moments.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: steps done, the best held-out loss and its step, evaluations since then, tokens so far.

    `row_tokens` is the budget of a row once memory ran out, None before; `recent_losses` are those that the next step's
    is held against (`SpikeGuard`, TALR), oldest first. `kept_step` is the last measured one that forgot little enough,
    and `forgot_step` the one that forgot too much, where `train.early_stopping_forgetting` is set.
    """

    steps_done: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    row_tokens: int | None = None
    recent_losses: Sequence[float] = ()
    kept_step: int | None = None
    forgot_step: int | None = None

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
        self.folder, self.keep, self.process_group = folder, keep, process_group

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
        self._forget_bests(progress)
        return target

    def save_best(self, optimizer: MasterWeights, progress: Progress) -> None:
        """Write the weights that the run may end with: of the best evaluation so far, or the last that were kept.

        Earlier ones stay while a checkpoint, or `progress`, counts on them.

        Raises:
            SaveError: the disk is full or refuses; the previous best is untouched.
        """
        weights = {MASTERS_FILE: dict(optimizer.output_weights)}
        self._write(self.folder / f"best-{progress.steps_done:06d}", weights, progress)
        self._forget_bests(progress)

    def newest(self) -> str | None:
        """The name of the checkpoint that a resume would go on from; None where there is none."""
        return next(iter(self.names()), None)

    def names(self) -> list[str]:
        """The names of those that a resume can go on from, newest first."""
        return [checkpoint.name for checkpoint in self._newest_first("step")]

    def newest_to_oldest(self, *, chosen: str | None) -> list[Path]:
        """The checkpoints that a run can go on from: the newest or the `chosen` one, and those before it.

        Raises:
            CheckpointError: there is none, or none of that name.
        """
        checkpoints = self._newest_first("step")
        if chosen is not None:
            return chosen_and_older(checkpoints, chosen, self.folder)
        if not checkpoints:
            raise CheckpointError(
                "There is no checkpoint to resume from",
                where=str(self.folder),
                expected="step-000001 or later",
                fix="start the run again without --resume",
            )
        return checkpoints

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
        checkpoints = self.newest_to_oldest(chosen=chosen)
        tensors, progress = self._read(checkpoints[0], optimizer, others=checkpoints[1:])
        rng_tensors = {name: tensors.pop(name) for name in [*tensors] if name.startswith(PREFIX)}
        moments = {name: tensors.pop(name) for name in [*tensors] if ":" in name}
        optimizer.restore(tensors, moments)
        restore_rng_state(of_rank(rng_tensors, self.process_group))
        self.process_group.barrier()
        self._forget_after(progress.steps_done)
        progress = self._with_kept(optimizer, progress, log)
        damage = self._best_damage(optimizer, progress)
        if damage is None:
            return progress
        if chosen is None:
            raise self._best_weights_error(self.folder / f"best-{progress.best_step:06d}", damage)
        self._delete([best for best in self._newest_first("best") if best.name == f"best-{progress.best_step:06d}"])
        log(
            f"The best weights so far, of step {progress.best_step}, are left out ({damage}): the best count anew; "
            "where no evaluation follows, the run ends with its last weights"
        )
        return replace(progress, best_step=None, best_loss=None)

    def _with_kept(self, optimizer: MasterWeights, progress: Progress, log: Callable[[str], None]) -> Progress:
        """The same; where the weights kept of a measured step are gone, it goes on without, and they count anew."""
        if progress.kept_step in (None, progress.best_step):
            return progress
        damage = self._best_damage(optimizer, replace(progress, best_step=progress.kept_step))
        if damage is None:
            return progress
        log(f"The weights kept of step {progress.kept_step} are left out ({damage}): those of this checkpoint are kept")
        return replace(progress, kept_step=None)

    def _best_damage(self, optimizer: MasterWeights, progress: Progress) -> str | None:
        """What is wrong with the best weights that a checkpoint counts on; those just restored are written again."""
        if progress.best_step is None:
            return None
        folder = self.folder / f"best-{progress.best_step:06d}"
        damage = self._checkpoint_damage(folder)
        if damage is not None and progress.best_step == progress.steps_done:
            self._delete([folder] if folder.exists() else [])
            self.process_group.barrier()
            self.save_best(optimizer, progress)
            return None
        return damage

    def _best_weights_error(self, folder: Path, damage: str) -> CheckpointError:
        return CheckpointError(
            "The best weights so far are damaged, or gone",
            where=str(folder),
            found=damage,
            expected="whole files",
            fix="go on without them: "
            + command("train", "--resume", self.folder.parent, "--from", self.newest() or "step-000001"),
        )

    def _checkpoint_damage(self, folder: Path) -> str | None:
        """What is wrong with a checkpoint; every process looks at a share of its files, and all get the answer."""
        problem = ""
        try:
            checked_state(folder, self.process_group)
        except DAMAGE as error:
            problem = str(error) or repr(error)
        return next(filter(None, self.process_group.gather(problem)), None)

    def restore_best(self, optimizer: MasterWeights, *, step: int) -> Progress:
        """Load the best weights, of `step`, into `optimizer` and its model; the moments stay as they are.

        Raises:
            CheckpointError: they are gone, or damaged; the error says how to end without them.
        """
        folder = self.folder / f"best-{step:06d}"
        if (damage := self._checkpoint_damage(folder)) is not None:
            raise self._best_weights_error(folder, damage)
        tensors, progress = self._read(folder, optimizer, others=[])
        optimizer.restore_masters({name: tensor for name, tensor in tensors.items() if ":" not in name})
        return progress

    def restore_weights(self, optimizer: MasterWeights, *, step: int) -> None:
        """Load the weights that a run which ended at `step` would be saved with: the moving average, if it keeps one.

        Raises:
            CheckpointError: there is no checkpoint of that step, or it is damaged.
        """
        folder = self.weights_folder(step)
        if folder is None:
            raise CheckpointError(
                f"There is no checkpoint of step {step}",
                where=str(self.folder),
                found=", ".join(path.name for path in self._newest_first("step")) or "no checkpoint",
                expected=f"step-{step:06d} or best-{step:06d}",
                fix="put it back, or choose another: "
                + command("compare", self.folder.parent, "--checkpoints", "--choose"),
            )
        tensors, _ = self._read(folder, optimizer, others=[])
        averages = {key.removeprefix(AVERAGE): value for key, value in tensors.items() if key.startswith(AVERAGE)}
        weights = averages or tensors
        optimizer.restore_masters({name: weights[name] for name in optimizer.masters if name in weights})

    def weights_folder(self, step: int) -> Path | None:
        """The checkpoint that has the weights of a step; None where none is left."""
        folders = (self.folder / f"{kind}-{step:06d}" for kind in ("step", "best"))
        return next((folder for folder in folders if folder.is_dir()), None)

    def weights_steps(self) -> list[int]:
        """The steps whose weights are there, in order."""
        paths = [*self._newest_first("step"), *self._newest_first("best")]
        return sorted({int(path.name.partition("-")[2]) for path in paths})

    def has_best(self) -> bool:
        """Whether there are best weights."""
        return bool(self._newest_first("best"))

    def forget_best(self) -> None:
        """Delete the best weights, once the run's model folder holds the same."""
        self._delete(self._newest_first("best"))

    def _newest_first(self, kind: str) -> list[Path]:
        prefix = f"{kind}-"
        paths = [path for path in self.folder.glob(f"{prefix}*") if path.name.removeprefix(prefix).isdecimal()]
        return sorted(paths, key=lambda path: (len(path.name), path.name), reverse=True)

    def _forget_bests(self, progress: Progress) -> None:
        """Delete all best weights but the newest, and those that the run or a checkpoint of it counts on."""
        counted_on = {progress.best_step, progress.kept_step}
        for checkpoint in self._newest_first("step"):
            with suppress(*DAMAGE):  # a damaged checkpoint counts on nothing
                saved = state_of(checkpoint)["progress"]
                counted_on |= {saved["best_step"], saved.get("kept_step")}
        needed = {f"best-{step:06d}" for step in counted_on if step is not None}
        self._delete([old for old in self._newest_first("best")[1:] if old.name not in needed])

    def _forget_after(self, step: int) -> None:
        for kind in ("step", "best"):
            last = f"{kind}-{step:06d}"
            self._delete([path for path in self._newest_first(kind) if (len(path.name), path.name) > (len(last), last)])
            self._delete(list(self.folder.glob(f".{kind}-*")))

    def _delete(self, folders: list[Path]) -> None:
        if self.process_group.is_main:
            for folder in folders:
                shutil.rmtree(folder)

    def _write(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        self._require_finite(tensors[MASTERS_FILE])
        if self.process_group.size > 1:
            self._write_shards(target, tensors, progress)
            return
        if target.exists():  # a resumed run comes to the same step again, with the same bits
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=self.folder))
        except OSError as error:
            raise checkpoint_save_error(target, error) from error
        try:
            hashes = {}
            for name, group in tensors.items():
                save_file({key: value.contiguous() for key, value in group.items()}, scratch / name)
                hashes[name] = sha256_and_sync(scratch / name)
            seal_checkpoint(scratch, target, hashes, asdict(progress))
        except (OSError, SafetensorError) as error:  # a full disk reaches us as either
            raise checkpoint_save_error(target, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _require_finite(self, weights: Mapping[str, torch.Tensor]) -> None:
        names = next(filter(None, self.process_group.gather(non_finite_names(weights))), [])
        if names:
            newest = self.newest()
            raise TrainingError(
                "The weights are no longer finite, so they are not saved",
                where=", ".join(names[:3]) + (f" and {len(names) - 3} more parameters" if len(names) > 3 else ""),
                found="NaN or infinity",
                expected="finite numbers" + ("" if newest is None else f", as in {self.folder / newest}, which stays"),
                fix="start a new run with a lower train.learning_rate",
            )

    def _write_shards(self, target: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress) -> None:
        """Every process writes what it keeps; the main one makes the folder and gives it its name."""
        process_group, scratch = self.process_group, target.with_name(f".{target.name}-shards")
        if process_group.any(process_group.is_main and target.exists()):
            return
        failure: Exception | None = None
        hashes = {}
        try:
            if process_group.is_main:
                shutil.rmtree(scratch, ignore_errors=True)  # left by a run that was killed
                scratch.mkdir(parents=True)
        except OSError as error:
            failure = error
        self._raise_on_every_rank(target, failure)
        try:
            hashes = write_shards(scratch, {name: value for group in tensors.values() for name, value in group.items()})
        except (OSError, SafetensorError) as error:
            failure = error
        all_hashes = {name: sha256 for shard in process_group.gather(hashes) for name, sha256 in shard.items()}
        try:
            self._raise_on_every_rank(target, failure)
            if process_group.is_main:
                seal_checkpoint(scratch, target, all_hashes, asdict(progress))
        except SaveError:
            raise
        except OSError as error:
            failure = error
        finally:
            if process_group.is_main:
                shutil.rmtree(scratch, ignore_errors=True)
        self._raise_on_every_rank(target, failure)

    def _raise_on_every_rank(self, target: Path, failure: Exception | None) -> None:
        """Raise on every process what went wrong on one of them."""
        number = failure.errno if isinstance(failure, OSError) else None
        cause = None if failure is None else (number, cause_of(failure))
        if first := next(filter(None, self.process_group.gather(cause)), None):
            raise checkpoint_save_error(target, OSError(first[1]) if first[0] is None else OSError(*first)) from failure

    def _read(
        self, folder: Path, optimizer: MasterWeights, *, others: list[Path]
    ) -> tuple[dict[str, torch.Tensor], Progress]:
        """All tensors and the progress, the bytes checked first, by every process a share."""
        damage: Exception | None = None
        try:
            state = checked_state(folder, self.process_group)
            progress = Progress(**state["progress"])
        except DAMAGE as error:
            damage = error
        own = "" if damage is None else str(damage) or repr(damage)
        problem = next(filter(None, self.process_group.gather(own)), None)
        if problem is not None:
            raise CheckpointError(
                "The checkpoint is damaged",
                where=str(folder),
                found=problem,
                expected="whole files",
                fix=older_checkpoint_remedy(folder, others),
            ) from damage
        if self.process_group.size > 1 or not {MASTERS_FILE, MOMENTS_FILE} & set(state["sha256"]):
            return read_shards(folder, optimizer.masters, self.process_group), progress
        return {key: tensor for name in state["sha256"] for key, tensor in load_file(folder / name).items()}, progress
