"""Lines that are added to a file one by one and never changed, each seen onto the disk before the next."""

from __future__ import annotations

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Add a line and see it onto the disk; several processes may do so at once.

    Args:
        path: of the file; it and its folder are made with the first line.
        line: without its end.

    Raises:
        OSError: the disk is full or refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # Behind a line that was cut off: one line is lost then, not two.
        cut_off = (size := os.fstat(descriptor).st_size) and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, (b"\n" if cut_off else b"") + line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    """Write in one call, so that lines of two processes do not mix; the rest, should the system take only a part."""
    while content:
        content = content[os.write(descriptor, content) :]
