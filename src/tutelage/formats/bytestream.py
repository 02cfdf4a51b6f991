"""Opens a file and gives its bytes: gzip or not, without a byte-order mark, and with a damaged end told, not raised."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from tutelage.types import Address, Drop

UTF8_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18


class ByteStream:
    """One pass over a file's bytes.

    Attributes:
        damage: what was wrong with the gzip stream, once a pass met it; the bytes before it are still given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None

    def lines(self) -> Iterator[bytes]:
        r"""Physical lines, split on b"\n" only and with it: U+2028, U+0085 and \r inside a string are content."""
        with self._open() as stream:
            try:
                first = stream.readline()
                yield first.removeprefix(UTF8_MARK)
                yield from stream
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.damage = str(error)

    def read_all(self) -> bytes:
        """All bytes up to the end or the damage."""
        return self.read_first(None)

    def read_first(self, most_bytes: int | None) -> bytes:
        """The first bytes, at least `most_bytes` of them where there are as many; None gives all."""
        chunks: list[bytes] = []
        size = 0
        with self._open() as stream:
            try:
                # read1: a plain read that meets the damage would lose the good bytes it had gathered.
                while (most_bytes is None or size < most_bytes) and (chunk := stream.read1(_CHUNK_BYTES)):
                    chunks.append(chunk)
                    size += len(chunk)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.damage = str(error)
        return b"".join(chunks).removeprefix(UTF8_MARK)

    def damage_drop(self, address: Address) -> Drop:
        """The one Drop that stands for all that the damaged end held."""
        detail = f"the gzip stream is damaged here ({self.damage}); nothing after this point can be read"
        return Drop(address, "damaged_gzip", detail)

    def _open(self) -> io.BufferedReader | gzip.GzipFile:
        with self.path.open("rb") as stream:
            packed = stream.read(2) == GZIP_MAGIC
        return gzip.open(self.path, "rb") if packed else self.path.open("rb")
