"""The files of one checkpoint: what its state says, whether its bytes are those written, and what to do if not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import CheckpointError, SaveError, cause_of, command, remedy
from tutelage.system.files import apply_default_modes, publish
from tutelage.system.seals import sealed, unsealed
from tutelage.train.sharded_checkpoint import sha256_and_sync

STATE_FILE = "state.json"
DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError)
"""What reading a damaged checkpoint raises, whichever byte is wrong."""


def seal_checkpoint(scratch: Path, target: Path, hashes: dict[str, str], progress: Mapping[str, Any]) -> None:
    """Say in the folder what is in it, then give it its name."""
    state = scratch / STATE_FILE
    state.write_text(sealed({"progress": dict(progress), "sha256": hashes}), encoding="utf-8")
    sha256_and_sync(state)
    apply_default_modes(scratch)
    publish(scratch, target)


def chosen_and_older(checkpoints: list[Path], chosen: str, folder: Path) -> list[Path]:
    """The chosen checkpoint and those before it, newest first."""
    names = [checkpoint.name for checkpoint in checkpoints]
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
    return checkpoints[names.index(chosen) :]


def older_checkpoint_remedy(damaged: Path, candidates: list[Path]) -> str:
    """The newest checkpoint before the damaged one that is whole, as something to do."""
    for candidate in candidates:
        with suppress(*DAMAGE):
            best = checked_state(candidate)["progress"]["best_step"]
            if best is not None and best != int(candidate.name.partition("-")[2]):
                checked_state(candidate.with_name(f"best-{best:06d}"))
            resume_command = command("train", "--resume", damaged.parent.parent, "--from", candidate.name)
            return f"go on from the one before: {resume_command}"
    return "start the run again"


def state_of(folder: Path) -> dict[str, Any]:
    """What `state.json` says, once it is as it was written, and of this folder."""
    state = unsealed((folder / STATE_FILE).read_bytes())
    folder_step = int(folder.name.partition("-")[2])
    if (recorded_step := state["progress"]["steps_done"]) != folder_step:
        raise ValueError(f"{STATE_FILE} is of step {recorded_step}, and the folder of step {folder_step}")
    if not state["sha256"]:
        raise ValueError(f"{STATE_FILE} names no file")
    return state


def checked_state(folder: Path, process_group: ProcessGroup = SINGLE) -> dict[str, Any]:
    """What `state.json` says, once each file it names, or this process's share of them, has the bytes written."""
    state = state_of(folder)
    if unlisted := sorted({path.name for path in folder.glob("*.safetensors")} - set(state["sha256"])):
        raise ValueError(f"{unlisted[0]} is no file of this checkpoint")
    for name, expected in sorted(state["sha256"].items())[process_group.rank :: process_group.size]:
        sha256 = sha256_and_sync(folder / name)
        if sha256 != expected:
            raise ValueError(f"{name} has sha256 {sha256[:12]}, expected {expected[:12]}")
    return state


def checkpoint_save_error(target: Path, error: Exception) -> SaveError:
    """What is said where a checkpoint cannot be written."""
    earlier = any(target.parent.glob("step-*"))
    return SaveError(
        "The checkpoint could not be saved" + ("; earlier ones are untouched" if earlier else ""),
        where=str(target),
        found=cause_of(error),
        fix=f"{remedy(error)}, then {'resume the run' if earlier else 'start the run again'}",
    )
