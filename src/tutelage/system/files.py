"""Files and folders that are whole or not there: written aside, seen onto the disk, then renamed.

This is the one place that does so. Who meets a name, in another process or after a power cut, meets all that was to
stand under it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """Where what can be made again is kept: $TUTELAGE_CACHE, else $XDG_CACHE_HOME/tutelage, else ~/.cache/tutelage."""
    if chosen := os.environ.get("TUTELAGE_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tutelage"


def sync(path: Path) -> None:
    """See a file's bytes, or a folder's names, onto the disk: a rename alone may be undone by a power cut.

    Source: fsync(2); a file's own does not reach the folder that names it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scratch_path(path: Path) -> Path:
    """Where `path` is written before it gets its name, by the one process that writes it: hidden, beside it."""
    return path.with_name(f".{path.name}")


def publish(scratch: Path, path: Path) -> None:
    """Give a file or folder that is written its name; an older file of that name is replaced, an older folder is not.

    Raises:
        OSError: the disk refuses, or there is such a folder, which is not empty.
    """
    if not scratch.is_symlink():
        sync(scratch)
    os.replace(scratch, path)
    sync(path.parent)


def write_bytes(path: Path, content: bytes | memoryview, *, shared: bool = False) -> None:
    """Write a file that is whole or as it was before.

    Args:
        path: an older file of that name is replaced.
        content: all of it.
        shared: other processes may write the same name meanwhile; the last of them stands.

    Raises:
        OSError: the disk is full or refuses.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}") if shared else scratch_path(path)
    try:
        scratch.write_bytes(content)
        publish(scratch, path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which gets the name of `folder` when the block ends; where it fails, nothing is left.

    Its files get the modes that others of this process have.

    Args:
        folder: where it is put. Its own parents are made.
        replace: delete an older one first. Otherwise an older one stands, as where another process was faster.

    Raises:
        OSError: the disk is full or refuses, or `folder` is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        apply_default_modes(scratch)
        for path in scratch.rglob("*"):
            if not path.is_symlink():
                sync(path)
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def apply_default_modes(folder: Path) -> None:
    """Give a folder, and all in it, the modes that new files and folders of this process get.

    safetensors makes its files 0600 and `tempfile.mkdtemp` its folders 0700, whatever the umask says.

    Raises:
        OSError: a mode cannot be changed.
    """
    of_files = _mode_of_new_files(folder)
    of_folders = of_files | (of_files & 0o444) >> 2  # who may read may enter
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():  # it would change what the link leads to
            path.chmod(of_folders if path.is_dir() else of_files)


def _mode_of_new_files(folder: Path) -> int:
    """Tried, as asking for the umask means changing it for every thread."""
    sample = folder / f".mode-{os.getpid()}"
    os.close(os.open(sample, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        return sample.stat().st_mode & 0o666
    finally:
        sample.unlink()
