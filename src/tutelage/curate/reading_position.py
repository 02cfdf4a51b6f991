"""How far the files of a curation are read, in megabytes: how many rows there will be nobody knows before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.formats.sources import SourceFile

_MEGABYTE = 1_000_000


@dataclass(slots=True)
class ReadingPosition:
    """Follows the reader through files whose sizes are known.

    Attributes:
        files: in the order they are read.
    """

    files: Sequence[SourceFile]
    _sizes: dict[str, int] = field(init=False)
    _before: int = 0
    _file: SourceFile | None = None
    _rows: int = 0
    _rows_before: int = 0

    def __post_init__(self) -> None:
        self._sizes = {file.display_name: file.path.stat().st_size for file in self.files}

    @property
    def total(self) -> int:
        """Megabytes of all files, rounded up."""
        return -(-sum(self._sizes.values()) // _MEGABYTE)

    def begin(self, file: SourceFile, rows: int, rows_before: int) -> None:
        """Hear that a file's rows are read from now on.

        Args:
            file: which.
            rows: that it holds.
            rows_before: of the files before it.
        """
        if self._file is not None:
            self._before += self._sizes[self._file.display_name]
        self._file, self._rows, self._rows_before = file, rows, rows_before

    def done(self, rows_in: int) -> int:
        """Megabytes that are read, when so many rows of all files are."""
        if self._file is None:
            return 0
        share = min(1.0, (rows_in - self._rows_before) / max(1, self._rows))
        return int((self._before + share * self._sizes[self._file.display_name]) // _MEGABYTE)
