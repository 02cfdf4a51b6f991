"""Opens a file and gives its bytes, unpacked and without a byte-order mark; a missing end is told, not raised."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from tutelage.errors import DataError, cause_of
from tutelage.formats.zstdstream import ZSTD_MAGIC, ZstdDamageError, open_zstd
from tutelage.types import Address, Drop

UTF8_BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_TRAILER_BYTES = 18
"""The shortest gzip member with its header and trailer."""

_LENGTH_SLACK = 1 << 16
READ_RIGHTS = "give yourself the right to read it: chmod u+r FILE"


class ByteStream:
    """One pass over a file's bytes.

    A gzip stream that breaks off gives what stands before the break. One that says otherwise than its checksum, or
    that cannot be what was compressed, is refused: what it gave so far may be other words than were written. The
    checksum stands at the end, so nothing of a file counts before a pass has come to it.

    Args:
        path: the file.
        display_name: its name in errors; the path itself unless given.

    Attributes:
        damage: how the gzip stream broke off, once a pass met it.

    Raises:
        DataError: from each pass, where the checksum fails or the file cannot be opened.
    """

    def __init__(self, path: Path, display_name: str | None = None) -> None:
        self.path, self.display_name = path, display_name or str(path)
        self.damage: str | None = None

    def lines(self) -> Iterator[bytes]:
        r"""Physical lines, split on b"\n" only and with it: U+2028, U+0085 and \r inside a string are content."""
        with self._open() as stream:
            try:
                first_line = stream.readline()
                yield first_line.removeprefix(UTF8_BOM)
                yield from stream
            except (EOFError, zlib.error, OSError) as error:
                self._record_damage(error, stream)

    def read_compressed(self, max_bytes: int) -> bytes:
        """The first bytes as the file has them, unpacked or not."""
        try:
            with self.path.open("rb") as stream:
                return stream.read(max_bytes)
        except OSError as error:
            raise self._read_error(error) from error

    def read_all(self) -> bytes:
        """All bytes up to the end or the damage."""
        return self.read_first(None)

    def read_first(self, max_bytes: int | None) -> bytes:
        """The first bytes, at least `max_bytes` of them where there are as many; None gives all."""
        chunks: list[bytes] = []
        size = 0
        with self._open() as stream:
            try:
                # read1: a plain read that meets the damage would lose the good bytes it had gathered.
                while (max_bytes is None or size < max_bytes) and (chunk := stream.read1(_CHUNK_BYTES)):
                    chunks.append(chunk)
                    size += len(chunk)
            except (EOFError, zlib.error, OSError) as error:
                self._record_damage(error, stream)
        return b"".join(chunks).removeprefix(UTF8_BOM)

    def damage_drop(self, address: Address) -> Drop:
        """The one Drop that stands for all that the damaged end held."""
        detail = f"the gzip stream is damaged here ({self.damage}); nothing after this point can be read"
        return Drop(address, "damaged_gzip", detail)

    def _record_damage(self, error: Exception, stream: io.BufferedReader | gzip.GzipFile) -> None:
        """Record a stream that breaks off.

        Raises:
            DataError: for any other end.
        """
        if isinstance(error, ZstdDamageError):
            raise DataError(
                "The zstd file is damaged",
                where=self.display_name,
                found=str(error),
                expected="a whole stream; no row of the file can be trusted",
                fix="copy or download it again",
            ) from error
        if isinstance(error, EOFError) and not self._has_trailer(stream.tell()):
            self.damage = str(error)
            return
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise self._read_error(error) from error
        raise DataError(
            "The gzip file is damaged",
            where=self.display_name,
            found=str(error),
            expected="content that agrees with its checksum; no row of the file can be trusted",
            fix="copy or download it again",
        ) from error

    def _has_trailer(self, decompressed_bytes: int) -> bool:
        """Whether a stream that ended too early is whole: its last four bytes then state about the length it gave.

        A damaged stream may run on over its own end. The bounds are wide, as the wrong answer here only refuses a file
        that must be copied again anyway.
        """
        with self.path.open("rb") as compressed:
            compressed.seek(0, io.SEEK_END)
            if compressed.tell() < _TRAILER_BYTES:
                return False
            compressed.seek(-4, io.SEEK_END)
            stated_bytes = int.from_bytes(compressed.read(4), "little")
        return abs(stated_bytes - decompressed_bytes % (1 << 32)) <= decompressed_bytes // 2 + _LENGTH_SLACK

    def _read_error(self, error: OSError) -> DataError:
        return DataError(
            "The file cannot be read",
            where=self.display_name,
            found=cause_of(error),
            fix=READ_RIGHTS if isinstance(error, PermissionError) else "check the disk, or copy the file again",
        )

    def _open(self) -> io.BufferedReader | gzip.GzipFile:
        try:
            with self.path.open("rb") as stream:
                start = stream.read(len(ZSTD_MAGIC))
            if start == ZSTD_MAGIC:
                return open_zstd(self.path)
            if start.startswith(GZIP_MAGIC):
                return gzip.open(self.path, "rb")
            return io.BufferedReader(io.FileIO(self.path), _CHUNK_BYTES)
        except OSError as error:
            raise self._read_error(error) from error
