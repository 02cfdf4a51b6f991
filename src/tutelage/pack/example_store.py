"""Examples in files: a sequence that holds nothing in memory but its index.

Four files in one folder: `examples.bin`, the Examples one after another (layout: `tutelage.render.example_codec`);
`index.bin`, one record each (`RECORD`); `systems.jsonl`, the different system prompts; `store.json`, the names of the
data files, and the size and SHA-256 of the others. They are read on access, a few hundred bytes at a time, so that
a million Examples cost the memory of one. A mapping of the files would do the same, but its pages would count as this
process's memory. Reading at an offset without seeking (`pread`) is POSIX.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError, cause_of
from tutelage.render.example_codec import example_from_bytes, example_to_bytes
from tutelage.system.seals import OTHER_BYTES, file_sha256, sealed, unsealed
from tutelage.types import Address, Example, Unit

EXAMPLES, INDEX, SYSTEMS, SUMMARY = "examples.bin", "index.bin", "systems.jsonl", "store.json"
NO_SYSTEM_PROMPT = -1
UNITS: tuple[Unit, ...] = ("line", "row", "item")
RECORD = np.dtype(
    [
        ("start", "<i8"),
        ("number", "<i8"),
        ("bytes", "<i4"),
        ("row", "<i4"),
        ("tokens", "<i4"),
        ("trained", "<i4"),
        ("file", "<i4"),
        ("unit", "<i4"),
        ("system", "<i4"),
    ],
    align=True,
)
"""One Example: where its bytes are, its address, which row of the store it came from, its counts of tokens, and which
system prompt its row opens with (-1: none)."""

CHUNK_BYTES = 1 << 20
BUFFER_BYTES = 1 << 20
"""Buffer of a written file."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What Examples hold together."""

    examples: int
    tokens: int
    trained_tokens: int


class StoreWriter:
    """Writes a store, row by row, into an empty folder; what is there counts once `finish` has returned.

    Args:
        folder: made if missing.
        vocabulary_size: up to 65,536, an id takes two bytes, else four.
    """

    def __init__(self, folder: Path, *, vocabulary_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._vocabulary_size = folder, vocabulary_size
        self._examples = HashedFile(folder / EXAMPLES)
        self._index = HashedFile(folder / INDEX)
        self._systems = HashedFile(folder / SYSTEMS)
        self._files: dict[str, int] = {}
        self._system_ids: dict[bytes, int] = {}
        self.rows = 0

    def add(self, examples: Sequence[Example], *, system: str | None = None) -> None:
        """Append the Examples of one row, and the system prompt it opens with."""
        system_id = self._system_id(system)
        for example in examples:
            data = example_to_bytes(example, vocabulary_size=self._vocabulary_size)
            address = example.address
            file_number = self._files.setdefault(address.file, len(self._files))
            location = (self._examples.size, address.number, len(data), self.rows)
            counts = (len(example.ids), example.trained_tokens, file_number, UNITS.index(address.unit), system_id)
            self._index.write(np.array([location + counts], dtype=RECORD).tobytes())
            self._examples.write(data)
        self.rows += 1

    def _system_id(self, system: str | None) -> int:
        if system is None:
            return NO_SYSTEM_PROMPT
        digest = hashlib.blake2b(system.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        system_id = self._system_ids.get(digest)
        if system_id is None:
            system_id = self._system_ids[digest] = len(self._system_ids)
            self._systems.write(json.dumps(system).encode() + b"\n")
        return system_id

    def finish(self) -> None:
        """Write what is still held, and the summary that makes it a store."""
        summary = {
            "rows": self.rows,
            "files": list(self._files),
            "written": {
                EXAMPLES: self._examples.finish(),
                INDEX: self._index.finish(),
                SYSTEMS: self._systems.finish(),
            },
        }
        write_sealed(self._folder / SUMMARY, summary)

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in (self._examples, self._index, self._systems):
            file.close()


class ExampleStore(Sequence[Example]):
    """The Examples of a store's folder, read as they are asked for, in the order chosen.

    Args:
        folder: where `StoreWriter` finished.
        verify: read all bytes once and compare their hashes.

    Raises:
        DataError: a file is missing, cut or, with `verify`, altered.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        summary = read_sealed(folder / SUMMARY)
        for name, written in summary["written"].items():
            require_intact(folder / name, written, verify=verify)
        self.rows: int = summary["rows"]
        self._bytes_sha256: str = summary["written"][EXAMPLES]["sha256"]
        self._files: list[str] = summary["files"]
        self._examples = (folder / EXAMPLES).open("rb", buffering=0)
        self._index = (folder / INDEX).open("rb", buffering=0)
        self._systems = (folder / SYSTEMS).open("rb")
        self._selected: NDArray[np.int32] | None = None
        self._length: int = self._index_length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleStore: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleStore:
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(self._length), dtype=np.int32))
        record_index = range(self._length)[index]  # negative indices and the error are those of any sequence
        if self._selected is not None:
            record_index = int(self._selected[record_index])
        record = np.frombuffer(_read(self._index, record_index * RECORD.itemsize, RECORD.itemsize), dtype=RECORD)[0]
        start, number, size_bytes, _, _, _, file_number, unit, _ = record.tolist()
        address = Address(self._files[file_number], number, UNITS[unit])
        return example_from_bytes(_read(self._examples, start, size_bytes), address)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(self._length))

    def select(self, indices: NDArray[np.integer[Any]]) -> ExampleStore:
        """The Examples at these indices, in that order, of the same files."""
        selection = object.__new__(ExampleStore)
        selection.__dict__ |= self.__dict__
        selection._selected = indices.astype(np.int32) if self._selected is None else self._selected[indices]
        selection._length = len(indices)
        return selection

    def sha256(self) -> str:
        """Hash of these Examples in this order: ids, weights and turns, without their addresses."""
        digest = hashlib.sha256(self._bytes_sha256.encode())
        if self._selected is not None:
            digest.update(self._selected.astype("<i4").tobytes())
        return digest.hexdigest()

    def column(self, name: str) -> NDArray[np.int64]:
        """One field of every Example's record, such as `row` or `tokens`; 8 bytes an Example."""
        column = np.empty(self._index_length, dtype=np.int64)
        chunk_records = CHUNK_BYTES // RECORD.itemsize
        for first_record in range(0, self._index_length, chunk_records):
            count = min(chunk_records, self._index_length - first_record)
            data = _read(self._index, first_record * RECORD.itemsize, count * RECORD.itemsize)
            column[first_record : first_record + count] = np.frombuffer(data, dtype=RECORD)[name]
        return column if self._selected is None else column[self._selected]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the data files, which the column `file` counts from 0."""
        return tuple(self._files)

    def totals(self) -> Totals:
        """Examples, tokens and trained tokens."""
        return Totals(self._length, int(self.column("tokens").sum()), int(self.column("trained").sum()))

    def system_prompt(self, system_id: int) -> str:
        """The text that a number of the column `system` stands for."""
        self._systems.seek(0)
        line = next(islice(self._systems, system_id, None))
        text: str = json.loads(line)
        return text

    @property
    def _index_length(self) -> int:
        return os.fstat(self._index.fileno()).st_size // RECORD.itemsize


class HashedFile:
    """A file written once from its start, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=BUFFER_BYTES)
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)

    def finish(self) -> dict[str, Any]:
        """See the bytes onto the disk; return their number and SHA-256."""
        self._stream.flush()
        os.fsync(self._stream.fileno())  # the summary must not outlive what it sums up
        self._stream.close()
        return {"bytes": self.size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close the file as it is."""
        self._stream.close()


def _read(stream: IO[bytes], start: int, size: int) -> bytes:
    data = os.pread(stream.fileno(), size, start)
    assert len(data) == size, f"{stream.name} was cut while in use"
    return data


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with its own hash, and see it onto the disk."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(sealed(content))
        stream.flush()
        os.fsync(stream.fileno())


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
        DataError: it is not there, or not as it was written.
    """
    try:
        return unsealed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, cause_of(error)) from error


def require_intact(path: Path, written: dict[str, Any], *, verify: bool) -> None:
    """Check a file against what `HashedFile.finish` said of it: its size, and with `verify` its bytes.

    Raises:
        DataError: it is not what was written.
    """
    size = path.stat().st_size if path.is_file() else None
    if size != written["bytes"]:
        raise _damaged(path, "no such file" if size is None else f"{size} bytes of {written['bytes']}")
    if verify and file_sha256(path) != written["sha256"]:
        raise _damaged(path, OTHER_BYTES)


def _damaged(path: Path, damage: str) -> DataError:
    return DataError(
        "The prepared Examples are damaged",
        where=str(path),
        found=damage,
        expected="the files as they were written",
        fix=f"delete {path.parent}; they are prepared again",
    )
