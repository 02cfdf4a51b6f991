"""Standard output that may be closed, full, or read by nobody: what then becomes of a command."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from tutelage.errors import SaveError, cause_of


class OutputEndedError(Exception):
    """Whoever read the output has gone, as `head` does once it has its lines."""


class Outlet(io.TextIOBase):
    """A stream that names its own failures, and writes nowhere after the first.

    Args:
        stream: where text goes.
        lasting: for work that must not end because nobody sees it, such as training: a failure is told once on standard
            error, and what follows is dropped.
    """

    def __init__(self, stream: TextIO, *, lasting: bool = False) -> None:
        self._stream, self._lasting = stream, lasting
        self._failed = False

    @property
    def encoding(self) -> str:  # type: ignore[override] # the base class declares a variable
        """That of the stream."""
        return self._stream.encoding

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            OutputEndedError: nobody reads any more.
            SaveError: the disk is full, or what else keeps it from being written.
        """
        if not self._failed:
            try:
                self._stream.write(text)
            except (OSError, OutputEndedError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """See it all written; raises as `write` does."""
        if not self._failed:
            try:
                self._stream.flush()
            except (OSError, OutputEndedError) as error:
                self._fail(error)

    def _fail(self, error: OSError | OutputEndedError) -> None:
        self._failed = True
        _write_nowhere(self._stream)
        if self._lasting:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            reason = "nobody reads it" if isinstance(cause, OutputEndedError | BrokenPipeError) else cause_of(cause)
            with suppress(OSError):
                sys.stderr.write(
                    f"note: the output cannot be written any more ({reason}); "
                    "the work goes on, and is recorded in the run's folder\n"
                )
            return
        if isinstance(error, OutputEndedError | SaveError):
            raise error
        if isinstance(error, BrokenPipeError):
            raise OutputEndedError from error
        raise SaveError(
            "The output could not be written",
            where="standard output",
            found=cause_of(error),
            expected="a terminal, a pipe that is read, or a file with room",
            fix="free some space, or send the output elsewhere",
        ) from error


def _write_nowhere(stream: TextIO) -> None:
    """Point the stream's descriptor at nothing: what is left in its buffer is written when Python ends."""
    with suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def open_streams() -> None:
    """Let text of any kind be written, and give a program that was started with closed streams ones that go nowhere.

    A character that the encoding of the output lacks is written by its code. A closed descriptor would otherwise be
    given to the next file that is opened, and be written over by whatever a library prints.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as above
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as above
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
