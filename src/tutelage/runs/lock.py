"""The lock of a run's folder: one process works in it, and others may read.

The system holds the lock for as long as the process lives, so a killed one leaves nothing to clean. The file itself
says who holds it, for people; nothing is decided by what it says.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from tutelage.errors import EngineError, SaveError
from tutelage.runs import folder as run_files

HOLDER_BYTES = 1024
"""Read at most of the lock file: one line of ours and the holder's."""
HELD_ERRNOS = (errno.EWOULDBLOCK, errno.EACCES)
UNSUPPORTED_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system answers that keeps no locks. Source: flock(2), "Errors"."""

Log = Callable[[str], None]


class RunLock:
    """The lock of one folder, which must exist, held from the start.

    Args:
        folder: of the run.
        log: receives a line where the file system keeps no locks.
        fix: what to do where another process holds it.

    Raises:
        EngineError: another process holds it; the error names that one.
        SaveError: nothing can be written into the folder.
    """

    def __init__(self, folder: Path, *, log: Log, fix: str) -> None:
        self._path = folder / run_files.LOCK
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise run_files.save_error("Nothing can be written into the run's folder", folder, error) from error
        try:
            self._lock(folder, log, fix)
            self._previous_content = os.pread(self._descriptor, HOLDER_BYTES, 0)
            self._write(f"{run_files.LOCK_MARK}\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            os.close(self._descriptor)
            raise run_files.save_error("The run's folder cannot be locked", folder, error) from error
        except EngineError:
            os.close(self._descriptor)
            raise

    def _lock(self, folder: Path, log: Log, fix: str) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD_ERRNOS:
                raise _in_use_error(folder, os.pread(self._descriptor, HOLDER_BYTES, 0), fix) from error
            if error.errno not in UNSUPPORTED_ERRNOS:
                raise
            log(f"  note: the disk of {folder} keeps no locks, so nothing keeps a second process out of this run")

    def is_of(self, folder: Path) -> bool:
        """Whether the folder of that name is still the one that was locked: another process may have moved it."""
        try:
            named = (folder / run_files.LOCK).stat()
        except OSError:
            return False
        locked_file = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (locked_file.st_dev, locked_file.st_ino)

    def release(self, *, restore: bool) -> None:
        """Unlock; with `restore` the file has its previous content, so that what was refused has changed nothing.

        A folder that holds nothing else is deleted: no run began in it.
        """
        with suppress(OSError):  # a full disk; the lock itself goes with the descriptor
            self._write(
                self._previous_content if restore and self._previous_content else f"{run_files.LOCK_MARK}\n".encode()
            )
        folder = self._path.parent
        with suppress(OSError):
            if self.is_of(folder) and os.listdir(folder) == [run_files.LOCK]:
                self._path.unlink()
                folder.rmdir()
        os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


@contextmanager
def locked(folder: Path, *, log: Log) -> Iterator[None]:
    """Hold the lock of a run's folder while the block runs.

    Raises:
        EngineError, SaveError: as `RunLock`.
    """
    with _releasing(RunLock(folder, log=log, fix="wait until it ends")):
        yield


@contextmanager
def new_run_folder(folder: Path, *, log: Log) -> Iterator[None]:
    """Make `folder`, empty, and hold its lock while the block runs; an earlier run of that name is moved aside.

    Args:
        folder: of the new run.
        log: receives the new path of the earlier run.

    Raises:
        EngineError: another process works in the folder of that name.
        ConfigError: what is there is no run of ours, or the folder would stand inside of one.
        SaveError: the folder cannot be made.
    """
    run_files.require_not_inside_run(folder)
    while True:
        run_files.make_folder(folder)
        try:
            run_files.holds_run(folder)  # before anything of ours is put into it
            lock = RunLock(folder, log=log, fix="wait until it ends, or start under another name: name=OTHER")
        except SaveError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # another start has moved the folder since it was made
                continue
            raise
        moved = None
        try:
            if lock.is_of(folder):  # else another start has moved it meanwhile; nobody moves it while it is locked
                if not run_files.holds_run(folder):
                    break
                moved = _rename_earlier_run(folder)
        except BaseException:
            lock.release(restore=True)
            raise
        lock.release(restore=True)
        if moved is not None:
            log(f"An earlier run of this name is now {moved}")
    with _releasing(lock):
        yield


@contextmanager
def _releasing(lock: RunLock) -> Iterator[None]:
    ended = False
    try:
        yield
        ended = True
    finally:
        lock.release(restore=not ended)


def _rename_earlier_run(folder: Path) -> Path:
    try:
        moved = next(
            numbered
            for number in count(1)
            if not os.path.lexists(numbered := folder.with_name(f"{folder.name}.{number}"))
        )
        os.rename(folder, moved)
    except OSError as error:
        raise run_files.save_error("The earlier run of this name cannot be moved aside", folder, error) from error
    return moved


def _in_use_error(folder: Path, holder: bytes, fix: str) -> EngineError:
    _, _, process = holder.decode("utf-8", "replace").partition("\n")
    return EngineError(
        f"This run is in use by {process.strip() or 'another process'}",
        where=str(folder),
        expected="one process at work in a run's folder",
        fix=fix,
    )
