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
from tutelage.system.files import name_aside, sync, write_bytes
from tutelage.system.seals import sealed, unsealed

LOCK = "run.lock"
LOCK_MARK = "The folder of a tutelage run; this file is locked while a process works in it."
SETTINGS = "settings.toml"
INPUTS = "inputs.json"
RECORD = "record.jsonl"
LEDGER = "ledger.json"
DROPS = "ledger.jsonl"
BEFORE = "before.json"
AFTER = "after.json"
ROWS = "rows.json"
RESULT = "result.json"
REPORT = "report.html"
STOPPED = "stopped.json"
CHECKPOINTS = "checkpoints"
TRACKERS = "trackers"
MODEL = "model"
ADAPTER = "adapter"
BEGINNINGS = {LOCK, f".{DROPS}", f".{INPUTS}", f".{SETTINGS}"}
"""What a start leaves that ended before its settings were written: no run began there."""
BEGINNINGS_BESIDE_LOCK = {*BEGINNINGS, DROPS, INPUTS}
"""The same with names that others use as well: ours where our lock is beside them."""
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
        raise not_written("The run folder cannot be made", folder, error) from error


def holds_run(folder: Path) -> bool:
    """Whether a folder that may become a run's holds an earlier one; False where it is empty, or no run began in it.

    Raises:
        ConfigError: it holds something else, which is not ours to move.
        SaveError: it cannot be read.
    """
    try:
        names = {path.name for path in folder.iterdir()}
        if names <= (BEGINNINGS_BESIDE_LOCK if _has_our_lock(folder) else BEGINNINGS - {LOCK}):
            return False
        if is_run(folder):
            return True
    except OSError as error:
        raise not_written("The run folder cannot be read", folder, error) from error
    raise ConfigError(
        "The folder for this run holds something else, which a run must not move",
        where=str(folder),
        found=", ".join(sorted(names)[:5]),
        expected="no such folder, an empty one, or an earlier run",
        fix="give the run another place: name=OTHER or folder=PATH",
    )


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
    of_a_run = all(isinstance(tables.get(name), dict) for name in SETTINGS_TABLES)
    return of_a_run and ((folder / INPUTS).is_file() or _has_our_lock(folder))


def _has_our_lock(folder: Path) -> bool:
    try:
        begin = (folder / LOCK).read_bytes()[: len(LOCK_MARK)]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return begin in (b"", LOCK_MARK.encode())  # empty: killed before it wrote the first word


def require_no_run_around(folder: Path) -> None:
    """Refuse a place for a run inside of another one, which would be moved aside, or searched, with it.

    Raises:
        ConfigError: there is a run above.
    """
    around = None
    with suppress(OSError, ValueError):  # what is wrong with the path itself is said where the folder is made
        around = next((above for above in Path(os.path.abspath(folder)).parents if is_run(above)), None)
    if around is not None:
        raise ConfigError(
            "A run cannot stand inside of another run",
            where=str(folder),
            found=f"the run {around}",
            expected="a folder outside of it",
            fix="give the run another place: folder=PATH",
        )


def existing_run_folder(name: str) -> Path:
    """The folder of a run that was started before, under a path whose last part is its name.

    Raises:
        SourceNotFoundError: it is not there, holds no settings, or cannot be looked into.
    """
    folder, trouble = Path(name), None
    if folder.name in ("", ".."):
        folder = folder.resolve()
    try:
        if (folder / SETTINGS).is_file():
            return folder
        beside = (
            sorted(str(path.parent) for path in folder.parent.glob(f"*/{SETTINGS}")) if folder.parent.is_dir() else []
        )
    except (OSError, ValueError) as error:
        trouble, beside = cause_of(error), []
    raise SourceNotFoundError(
        f"'{name}' is not a run",
        where=name,
        found=trouble or (("runs beside it: " + ", ".join(beside[:5])) if beside else "no settings.toml in it"),
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


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    try:
        write_bytes(path, text.encode("utf-8"))
    except (OSError, UnicodeEncodeError) as error:
        raise not_written(f"{path.name} could not be written", path, error) from error


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where a file is written line by line while the block runs; `put_in_place` gives it its name, or it is gone."""
    scratch = name_aside(path)
    _take_away(scratch)
    try:
        yield scratch
    finally:
        _take_away(scratch)


def put_in_place(path: Path) -> None:
    """Give what was written aside its name; where nothing was, nothing of that name stays.

    Raises:
        SaveError: the disk refuses.
    """
    scratch = name_aside(path)
    if not scratch.exists():
        _take_away(path)
        return
    try:
        files.put_in_place(scratch, path)
    except OSError as error:
        raise not_written(f"{path.name} could not be written", path, error) from error


def _take_away(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(f"{path.name} could not be deleted", path, error) from error


def not_written(what: str, where: Path, error: Exception) -> SaveError:
    """What the system said of a write, with the one thing to do about it."""
    return SaveError(what, where=str(where), found=cause_of(error), fix=remedy(error))


def set_aside_finished(folder: Path, *, steps: int) -> Path:
    """Move what a finished run ended with into a folder inside it, as the run goes on; `RESULT` last.

    Raises:
        SaveError: the disk refuses; called again it moves the rest.
    """
    aside = folder / f"finished-{steps:06d}"
    try:
        aside.mkdir(exist_ok=True)
        for name in (MODEL, ADAPTER, AFTER, REPORT, RESULT):
            if (folder / name).exists():
                os.replace(folder / name, aside / name)
        sync(aside)
        sync(folder)
    except OSError as error:
        # A resume keeps its settings, so another folder= cannot be given.
        again = "copy the run to another disk, and resume the copy"
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
            again = f"move it out of the run's folder, then resume: {command('train', '--resume', folder)}"
        raise SaveError(
            "What the run ended with could not be put aside",
            where=str(aside),
            found=cause_of(error),
            fix=remedy(error, elsewhere=again),
        ) from error
    return aside


def clear_scratch(folder: Path) -> None:
    """Delete what a killed process was writing in a run's folder: names that begin with a dot, each for one of ours."""
    for name in (SETTINGS, INPUTS, RECORD, LEDGER, DROPS, BEFORE, AFTER, ROWS, RESULT, STOPPED):
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
