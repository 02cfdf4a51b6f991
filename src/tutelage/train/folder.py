"""The run folder: what each file in it is, and the rule that nothing in an older run is ever overwritten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

from tutelage.errors import SaveError, SourceNotFoundError, cause_of

SETTINGS = "settings.toml"
INPUTS = "inputs.json"
RECORD = "record.jsonl"
LEDGER = "ledger.json"
DROPS = "ledger.jsonl"
BEFORE = "before.json"
AFTER = "after.json"
ROWS = "rows.json"
RESULT = "result.json"
STOPPED = "stopped.json"
CHECKPOINTS = "checkpoints"
TRACKERS = "trackers"
MODEL = "model"
ADAPTER = "adapter"
PACKAGES = ("tutelage", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def new_run_folder(folder: Path) -> Path | None:
    """Make `folder`; an earlier run of that name is moved aside, and its new place returned.

    Raises:
        SaveError: the folder cannot be made.
    """
    moved = None
    try:
        if folder.exists() and any(folder.iterdir()):
            moved = next(
                aside for number in count(1) if not (aside := folder.with_name(f"{folder.name}.{number}")).exists()
            )
            os.replace(folder, moved)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            "The run folder cannot be made",
            where=str(folder),
            found=cause_of(error),
            fix="choose another with folder=PATH, or free some space",
        ) from error
    return moved


def existing_run_folder(name: str) -> Path:
    """The folder of a run that was started before.

    Raises:
        SourceNotFoundError: it is not there, or holds no settings.
    """
    folder = Path(name)
    if not (folder / SETTINGS).is_file():
        runs = sorted(str(one.parent) for one in folder.parent.glob(f"*/{SETTINGS}")) if folder.parent.is_dir() else []
        raise SourceNotFoundError(
            f"'{name}' is not a run",
            where=name,
            found=("runs beside it: " + ", ".join(runs[:5])) if runs else "no settings.toml in it",
            expected="a folder that `tutelage train` wrote",
            fix="give the folder of a run, for example runs/quickstart",
        )
    return folder


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    scratch = path.with_name(f".{path.name}")
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
        sync(path.parent)
    except OSError as error:
        raise SaveError(
            f"{path.name} could not be written", where=str(path), found=cause_of(error), fix="free some space"
        ) from error


def sync(path: Path) -> None:
    """See a file's bytes, or a folder's names, onto the disk: a rename alone may be undone by a power cut.

    Source: fsync(2); a file's own does not reach the folder that names it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_scratch(folder: Path) -> None:
    """Delete what a killed process was writing in a run's folder: names that begin with a dot, each for one of ours."""
    for name in (SETTINGS, INPUTS, RECORD, LEDGER, BEFORE, AFTER, ROWS, RESULT, STOPPED):
        (folder / f".{name}").unlink(missing_ok=True)
    for name in (MODEL, ADAPTER):
        for scratch in folder.glob(f".{name}-*"):
            shutil.rmtree(scratch, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the current folder, with `+` when files differ from it; None outside git."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 git is looked up as any user's shell would
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],  # noqa: S607 as above
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if dirty else "")
