"""The files of a run's data: their SHA-256, and the promise that the bytes hashed are the bytes read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tutelage.errors import DataError, TutelageError, cause_of
from tutelage.formats.sources import SourceFile, find_files
from tutelage.system.seals import file_sha256


@dataclass(slots=True)
class Reading:
    """What came of reading files: `touched` where one was written to, with the same bytes as before."""

    touched: bool = False


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Finds the files behind each source once, and hashes each once; what was read must have the same hash still.

    Attributes:
        note: told what is worth saying of a source as a whole.
        sha256: hash by the name that addresses show.
    """

    note: Callable[[str], None]
    sha256: dict[str, str] = field(default_factory=dict)
    _by_source: dict[str, list[SourceFile]] = field(default_factory=dict)

    def of(self, sources: Sequence[str]) -> list[SourceFile]:
        """The files behind the sources; their hashes are in `sha256` from here on.

        Raises:
            DataError: one of them cannot be read; or as `find_files`.
        """
        for source in sources:
            if source not in self._by_source:
                self._by_source[source] = find_files([source], self.note)
        files = [file for source in sources for file in self._by_source[source]]
        self.take(files)
        return files

    def take(self, files: Sequence[SourceFile]) -> None:
        """Hash those of the files that were not hashed yet.

        Raises:
            DataError: one of them cannot be read.
        """
        for file in files:
            if file.display_name not in self.sha256:
                self.sha256[file.display_name] = _sha256(file)

    @contextmanager
    def reading(self, files: Sequence[SourceFile], sources: Sequence[str] = ()) -> Iterator[Reading]:
        """Read the files, whose hashes were taken, in the block; afterwards they must still have these bytes.

        Args:
            files: what is read.
            sources: where they were found; there must be the same files afterwards.

        Raises:
            DataError: a file was written to, came or went while the block ran, or the system cannot read it.
        """
        states = [_size_and_mtime(file) for file in files]
        outcome = Reading()
        try:
            yield outcome
        except TutelageError:
            self._require_unchanged(files, sources)  # what a file looked like while it was written is no finding
            raise
        except OSError as error:
            self._require_unchanged(files, sources)
            raise DataError(
                "The data could not be read",
                where=str(error.filename or ", ".join(file.display_name for file in files)),
                found=cause_of(error),
                expected="files that stay readable until all rows are proven",
                fix="check the disk that holds them, then start again",
            ) from error
        self._require_unchanged(files, sources)
        outcome.touched = states != [_size_and_mtime(file) for file in files]

    def _require_unchanged(self, files: Sequence[SourceFile], sources: Sequence[str]) -> None:
        are_local = all(file.display_name == str(file.path) for file in files)  # the hub's are fixed by their revision
        if sources and are_local and (current_files := find_files(sources, lambda _note: None)) != list(files):
            differing_names = sorted(
                {file.display_name for file in current_files} ^ {file.display_name for file in files}
            )
            raise _changed_error(", ".join(differing_names), "a file that came or went")
        for file in files:
            if _sha256(file) != self.sha256[file.display_name]:
                raise _changed_error(file.display_name, "other bytes than when it was hashed")


def _changed_error(where: str, change: str) -> DataError:
    return DataError(
        "The data changed while it was read, so no hash says what was trained on",
        where=where,
        found=change,
        expected="the same bytes until all rows are proven",
        fix="start again once nothing writes there, or name a copy of the file",
    )


def _size_and_mtime(file: SourceFile) -> tuple[int, int]:
    """Size and time of change: whether a file was written to while it was read."""
    try:
        status = file.path.stat()
    except OSError as error:
        raise _read_error(file.display_name, error) from error
    return status.st_size, status.st_mtime_ns


def _sha256(file: SourceFile) -> str:
    try:
        return file_sha256(file.path)
    except OSError as error:
        raise _read_error(file.display_name, error) from error


def _read_error(display_name: str, error: OSError) -> DataError:
    return DataError(
        "The data file cannot be read",
        where=display_name,
        found=cause_of(error),
        expected="a file that this user may read",
        fix="check its path and permissions",
    )
