"""The run folder: what each file in it is, and the rule that nothing in an older run is ever overwritten."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.errors import CheckpointError, ConfigError, SaveError, SourceNotFoundError, cause_of, command, remedy
from tutelage.system import files
from tutelage.system.files import scratch_path, sync, write_bytes
from tutelage.system.seals import sealed, unsealed

LOCK = "run.lock"
LOCK_MARK = "The folder of a tutelage run; this file is locked while a process works in it."
SETTINGS = "settings.toml"
INPUTS = "inputs.json"
RECORD = "record.jsonl"
STARTS = "starts.json"
LEDGER = "ledger.json"
DROPS = "ledger.jsonl"
CURATION = "curation.json"
CURATION_PAGE = "curation.html"
BEFORE = "before.json"
AFTER = "after.json"
BASE_REPLIES = "base_replies.safetensors"
REPLIES_BEFORE = "replies-before.jsonl"
REPLIES_AFTER = "replies-after.jsonl"
REPLIES_AGAIN = "replies-evaluate.jsonl"
REPLIES_WHILE_TRAINING = "replies-while-training.jsonl"
INTERMEDIATE = "intermediate"
ROWS = "rows.json"
RESULT = "result.json"
REPORT = "report.html"
DIAL = "dial.json"
EVALUATION = "evaluation.json"
CHOICE = "choice.json"
DIAL_PAGE = "dial.html"
STOPPED = "stopped.json"
CHECKPOINTS = "checkpoints"
TRACKERS = "trackers"
MODEL = "model"
ADAPTER = "adapter"
STARTUP_FILES = {LOCK, f".{DROPS}", f".{INPUTS}", f".{SETTINGS}"}
"""What a start leaves that ended before its settings were written: no run began there."""
STARTUP_FILES_WITH_LOCK = {*STARTUP_FILES, DROPS, INPUTS, CURATION, CURATION_PAGE}
"""The same with names that others use as well: ours where our lock is beside them."""
READINGS_WHILE_CHANGING = 20
"""A folder is read again, at most this often, where its entries changed while it was read."""
SETTINGS_TABLES = ("model", "data", "train")
"""Tables that every run's settings have."""
PACKAGES = ("tutelage", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def make_folder(folder: Path) -> None:
    """Make a run's folder, and those above it, where they are missing.

    Raises:
        SaveError: it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a name with a NUL, or that no file system can spell
        raise save_error("The run folder cannot be made", folder, error) from error


def holds_run(folder: Path) -> bool:
    """Whether a folder that may become a run's holds an earlier one; False where it is empty, or no run began in it.

    Raises:
        ConfigError: it holds something else, which is not ours to move.
        SaveError: it cannot be read.
    """
    for _ in range(READINGS_WHILE_CHANGING):
        try:
            state = _state(folder)
            names = {path.name for path in folder.iterdir()}
            if names <= (STARTUP_FILES_WITH_LOCK if _has_our_lock(folder) else STARTUP_FILES - {LOCK}):
                return False
            if is_run(folder):
                return True
            if _state(folder) == state:
                break  # else another start moved it between the names and what the files say
        except OSError as error:
            raise save_error("The run folder cannot be read", folder, error) from error
    raise ConfigError(
        "The folder for this run holds something else, which a run must not move",
        where=str(folder),
        found=", ".join(sorted(names)[:5]),
        expected="no such folder, an empty one, or an earlier run",
        fix="give the run another place: name=OTHER or folder=PATH",
    )


def _state(folder: Path) -> tuple[int, int, int]:
    """Changes where the folder of this name is another one, or has another entry."""
    status = folder.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def is_run(folder: Path) -> bool:
    """Whether a run of ours is in a folder: settings like a run's with the file of its lock, or with its inputs.

    A recipe by the name of `settings.toml` alone makes no run; settings that are damaged, beside our lock, are one.

    Raises:
        OSError: it cannot be looked into.
    """
    try:
        text = (folder / SETTINGS).read_bytes().decode("utf-8")
        tables = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except ValueError:  # no UTF-8, or no TOML
        return _has_our_lock(folder)
    has_run_tables = all(isinstance(tables.get(name), dict) for name in SETTINGS_TABLES)
    return has_run_tables and ((folder / INPUTS).is_file() or _has_our_lock(folder))


def _has_our_lock(folder: Path) -> bool:
    try:
        first_bytes = (folder / LOCK).read_bytes()[: len(LOCK_MARK)]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return first_bytes in (b"", LOCK_MARK.encode())  # empty: killed before it wrote the first word


def require_not_inside_run(folder: Path) -> None:
    """Refuse a place for a run inside of another one, which would be moved aside, or searched, with it.

    Raises:
        ConfigError: there is a run above.
    """
    outer_run = None
    with suppress(OSError, ValueError):  # what is wrong with the path itself is said where the folder is made
        outer_run = next((parent for parent in Path(os.path.abspath(folder)).parents if is_run(parent)), None)
    if outer_run is not None:
        raise ConfigError(
            "A run cannot stand inside of another run",
            where=str(folder),
            found=f"the run {outer_run}",
            expected="a folder outside of it",
            fix="give the run another place: folder=PATH",
        )


def existing_run_folder(name: str) -> Path:
    """The folder of a run that was started before, under a path whose last part is its name.

    Raises:
        SourceNotFoundError: it is not there, holds no settings, or cannot be looked into.
    """
    folder, cause = Path(name), None
    if folder.name in ("", ".."):
        folder = folder.resolve()
    try:
        if (folder / SETTINGS).is_file():
            return folder
        sibling_runs = (
            sorted(str(path.parent) for path in folder.parent.glob(f"*/{SETTINGS}")) if folder.parent.is_dir() else []
        )
    except (OSError, ValueError) as error:
        cause, sibling_runs = cause_of(error), []
    raise SourceNotFoundError(
        f"'{name}' is not a run",
        where=name,
        found=cause
        or (("runs beside it: " + ", ".join(sibling_runs[:5])) if sibling_runs else "no settings.toml in it"),
        expected="a folder that `tutelage train` wrote",
        fix="give the folder of a run, for example runs/quickstart",
    )


def read_settings(folder: Path) -> config.Settings:
    """The settings that a run was started with.

    Raises:
        CheckpointError: they cannot be read: damaged, or of another version.
    """
    try:
        return config.load(folder / SETTINGS)
    except (ConfigError, SourceNotFoundError) as error:
        raise CheckpointError(
            "The settings of this run cannot be read: they are damaged, or another version wrote them",
            where=error.where or str(folder / SETTINGS),
            found=f"{error.what}{(error.found and f': {error.found}') or ''}",
            expected="settings.toml as the run wrote it",
            fix="put the file back as it was, or go on with the version that wrote it (`versions` in inputs.json)",
        ) from error


def trained_name(settings: config.Settings) -> str:
    """The folder of a run that holds what was trained: a whole model, or an adapter of the base."""
    return MODEL if settings.model.method == "full" else ADAPTER


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside and rename it; an object ends with its own hash, which `read_json` holds it against.

    Raises:
        SaveError: the disk is full or refuses.
    """
    text = sealed(value) if isinstance(value, dict) else json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    write_text(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """The object that `write_json` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not as it was written.
    """
    return unsealed(path.read_bytes())


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished run's `result.json` says.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / RESULT
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "This run is finished, and what it wrote of its result is damaged",
            where=str(path),
            found=cause_of(error),
            expected="the file as the run wrote it",
            fix=f"its weights are there: {command('evaluate', folder)} measures them again",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    try:
        write_bytes(path, text.encode("utf-8"))
    except (OSError, UnicodeEncodeError) as error:
        raise save_error(f"{path.name} could not be written", path, error) from error


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Where a file is written line by line while the block runs; `publish` gives it its name, or it is gone."""
    scratch = scratch_path(path)
    _delete(scratch)
    try:
        yield scratch
    finally:
        _delete(scratch)


def publish(path: Path) -> None:
    """Give what was written aside its name; where nothing was, nothing of that name stays.

    Raises:
        SaveError: the disk refuses.
    """
    scratch = scratch_path(path)
    if not scratch.exists():
        _delete(path)
        return
    try:
        files.publish(scratch, path)
    except OSError as error:
        raise save_error(f"{path.name} could not be written", path, error) from error


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise save_error(f"{path.name} could not be deleted", path, error) from error


def save_error(what: str, where: Path, error: Exception) -> SaveError:
    """The error of a write that the system refused, with the one thing to do about it."""
    return SaveError(what, where=str(where), found=cause_of(error), fix=remedy(error))


def move_finished_aside(folder: Path, *, steps: int, weights_of: int | None = None) -> Path:
    """Move what a finished run ended with into a folder inside it, as the run goes on; `RESULT` last.

    Args:
        folder: of the run.
        steps: that it had taken.
        weights_of: the step whose weights it ended with, where it is to end with those of another one; None: the run
            goes on, and what was chosen among its checkpoints goes aside, too.

    Raises:
        SaveError: the disk refuses; called again it moves the rest.
    """
    finished = folder / f"finished-{steps:06d}"
    ended_with = (MODEL, ADAPTER, AFTER, REPORT, DIAL, DIAL_PAGE, CHOICE, RESULT)
    if weights_of is not None:
        name = f"{finished.name}-with-{weights_of:06d}"
        taken = sum(path.name.split(".")[0] == name for path in folder.glob(f"{name}*"))
        finished = folder / (f"{name}.{taken}" if taken else name)
        ended_with = (MODEL, ADAPTER, AFTER, REPORT, DIAL, DIAL_PAGE, EVALUATION, RESULT)
    try:
        finished.mkdir(exist_ok=True)
        for name in ended_with:
            if (folder / name).exists():
                os.replace(folder / name, finished / name)
        sync(finished)
        sync(folder)
    except OSError as error:
        # A resume keeps its settings, so another folder= cannot be given.
        remedy_elsewhere = "copy the run to another disk, and resume the copy"
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
            remedy_elsewhere = f"move it out of the run's folder, then resume: {command('train', '--resume', folder)}"
        raise SaveError(
            "What the run ended with could not be put aside",
            where=str(finished),
            found=cause_of(error),
            fix=remedy(error, elsewhere=remedy_elsewhere),
        ) from error
    return finished


def clear_scratch(folder: Path) -> None:
    """Delete what a killed process was writing in a run's folder: names that begin with a dot, each for one of ours."""
    names = (
        SETTINGS, INPUTS, RECORD, STARTS, LEDGER, DROPS, BEFORE, BASE_REPLIES, AFTER, ROWS, RESULT, STOPPED, DIAL,
        CHOICE,
    )  # fmt: skip
    for name in names:
        (folder / f".{name}").unlink(missing_ok=True)
    for name in (MODEL, ADAPTER):
        for scratch in folder.glob(f".{name}-*"):
            shutil.rmtree(scratch, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


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
