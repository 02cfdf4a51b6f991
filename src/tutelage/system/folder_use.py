"""Folders of a cache that several processes use: none is deleted while one of them reads in it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IN_USE = ".in-use"
"""The file whose lock says so; the system gives it back when a process ends, however it ended."""
HELD_ERRNOS = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing, and keep it from `delete_unused` while the block runs.

    A disk that keeps no locks keeps it from nothing.

    Raises:
        OSError: the disk refuses.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # deleted since it was made
            continue
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_named(descriptor, folder / IN_USE):
            break
        os.close(descriptor)  # it waited for one that deleted the folder
    try:
        yield
    finally:
        os.close(descriptor)


def delete_unused(folder: Path) -> bool:
    """Delete a folder that no process is `using`; False where one is."""
    try:
        descriptor = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another process deleted it, or it is not ours to write in
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_ERRNOS:
            os.close(descriptor)
            return False
    shutil.rmtree(folder, ignore_errors=True)  # another process may be at the same
    os.close(descriptor)
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        named, opened = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
