"""Single keys of a terminal, or lines of a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

END_OF_INPUT = "\x04"
"""What Ctrl-D sends."""
ESCAPE = "\x1b"


@contextmanager
def reading_keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits for the next key, or reads a line where no terminal is; EOFError at the end.

    The terminal hands keys on at once for the whole block, and none is lost between two of them; it is as it was
    behind the block. Ctrl-C stays Ctrl-C.
    """
    if not sys.stdin.isatty():
        yield _line
        return
    try:
        import termios
        import tty
    except ImportError:  # not on Windows
        yield typer.getchar
        return
    descriptor = sys.stdin.fileno()
    mode = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield _keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)


def _keys(descriptor: int) -> Callable[[], str]:
    waiting: list[str] = []

    def read() -> str:
        if not waiting:
            text = os.read(descriptor, 1024).decode("utf-8", "replace")
            # An arrow or function key is one key, whatever letters it is spelled with.
            waiting.extend([text] if text.startswith(ESCAPE) else text or END_OF_INPUT)
        if (key := waiting.pop(0)) == END_OF_INPUT:
            raise EOFError
        return key

    return read


def _line() -> str:
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line
