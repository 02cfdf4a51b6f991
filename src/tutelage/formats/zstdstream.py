"""Bytes of a file that zstd compressed, through the codec that comes with pyarrow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class ZstdDamageError(OSError):
    """The stream breaks off, or is not what was compressed."""


class _Decompressed(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = path.open("rb")
        self._stream: Any = pa.CompressedInputStream(self._file, "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data: bytes = self._stream.read(len(buffer))
        except OSError as error:
            raise ZstdDamageError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._file.close()
        super().close()


def open_zstd(path: Path) -> io.BufferedReader:
    """The decompressed bytes of a file, of all its frames.

    Raises:
        OSError: the file cannot be opened; `ZstdDamageError` while it is read.
    """
    return io.BufferedReader(_Decompressed(path), 1 << 18)
