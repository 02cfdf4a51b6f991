"""Examples in an Arrow file: a sequence that holds nothing in memory but where its chunks begin.

Three files in one folder: `examples.arrow`, an Arrow IPC file with one row for each Example, which polars, pandas and
`datasets` open as well; `systems.jsonl`, the different system prompts; `store.json`, the names of the data files, and
the size and SHA-256 of the others. Record batches are appended as workers made them, and read through a mapping of the
file, so that a million Examples cost the memory of one: pages that were read are given back to the system every few
Examples, as they would count as this process's memory. That (`madvise`) is POSIX.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError, cause_of
from tutelage.pack.arrow_layout import StoredChunk, record_batch, store_schema, stored_chunk
from tutelage.render.example_codec import SMALL_IDS
from tutelage.render.workers import ProvenChunk
from tutelage.system.seals import OTHER_BYTES, file_sha256, sealed, unsealed
from tutelage.types import Address, Example

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXAMPLES, SYSTEMS, SUMMARY = "examples.arrow", "systems.jsonl", "store.json"
NO_SYSTEM_PROMPT = -1
READS_PER_RELEASE = 8
"""Examples read before their pages are given back: the system maps up to 64 KiB around each of five places."""
CHUNKS_KEPT = 64
"""Chunks whose place in the file is remembered, about 10 KB each."""
BUFFER_BYTES = 1 << 20
"""Buffer of a written file."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What Examples hold together."""

    examples: int
    tokens: int
    trained_tokens: int


class StoreWriter:
    """Writes a store, chunk by chunk, into an empty folder; what is there counts once `finish` has returned.

    Args:
        folder: made if missing.
        vocabulary_size: up to 65,536, an id takes two bytes, else four.
    """

    def __init__(self, folder: Path, *, vocabulary_size: int) -> None:
        import pyarrow as pa

        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = store_schema(small_ids=vocabulary_size <= SMALL_IDS)
        self._examples = HashedFile(folder / EXAMPLES)
        self._systems = HashedFile(folder / SYSTEMS)
        self._batches = pa.ipc.new_file(pa.PythonFile(self._examples, mode="w"), self._schema)
        self._digest = hashlib.sha256()
        self._files: dict[str, int] = {}
        self._system_ids: dict[bytes, int] = {}
        self._chunk_examples: list[int] = []
        self.rows = 0

    def append(self, chunk: ProvenChunk) -> None:
        """Append the Examples of a chunk as they are, with the address of each and the system prompt it opens with."""
        if not len(chunk.columns):
            return
        addresses: list[Address] = []
        rows: list[int] = []
        system_ids: list[int] = []
        for row in chunk.rows:
            if row.conversation is None or not row.examples:
                continue
            first = row.conversation.messages[0]
            system_id = self._system_id(first.content if first.role == "system" else None)
            addresses += [row.conversation.address] * row.examples
            rows += [self.rows] * row.examples
            system_ids += [system_id] * row.examples
            self.rows += 1
        files = [self._files.setdefault(address.file, len(self._files)) for address in addresses]
        self._batches.write_batch(record_batch(self._schema, chunk.columns, addresses, files, rows, system_ids))
        chunk.columns.add_to_hash(self._digest)
        self._chunk_examples.append(len(chunk.columns))

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
        self._batches.close()
        summary = {
            "rows": self.rows,
            "files": list(self._files),
            "chunk_examples": self._chunk_examples,
            "examples_sha256": self._digest.hexdigest(),
            "written": {EXAMPLES: self._examples.finish(), SYSTEMS: self._systems.finish()},
        }
        write_sealed(self._folder / SUMMARY, summary)

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in (self._examples, self._systems):
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
        import pyarrow as pa

        summary = read_sealed(folder / SUMMARY)
        for name, written in summary["written"].items():
            require_intact(folder / name, written, verify=verify)
        self.rows: int = summary["rows"]
        self._examples_sha256: str = summary["examples_sha256"]
        self._files: list[str] = summary["files"]
        with (folder / EXAMPLES).open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._batches = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
        self._systems = (folder / SYSTEMS).open("rb")
        self._chunk_ends = np.cumsum(np.asarray(summary["chunk_examples"], dtype=np.int64))
        self._chunks: dict[int, StoredChunk] = {}
        self._selected: NDArray[np.int32] | None = None
        self._length: int = self._stored_examples

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleStore: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleStore:
        if isinstance(index, slice):
            return self.select(np.arange(*index.indices(self._length), dtype=np.int32))
        stored_index = range(self._length)[index]  # negative indices and the error are those of any sequence
        if self._selected is not None:
            stored_index = int(self._selected[stored_index])
        chunk_number = int(self._chunk_ends.searchsorted(stored_index, side="right"))
        chunk = self._chunk(chunk_number)
        inner_index = stored_index - int(self._chunk_ends[chunk_number]) + len(chunk.columns)
        address = Address(
            chunk.files[inner_index].as_py(), chunk.numbers[inner_index].as_py(), chunk.units[inner_index].as_py()
        )
        example = chunk.columns.example(inner_index, address)
        if stored_index % READS_PER_RELEASE == 0:
            self._release_pages()
        return example

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
        digest = hashlib.sha256(self._examples_sha256.encode())
        if self._selected is not None:
            digest.update(self._selected.astype("<i4").tobytes())
        return digest.hexdigest()

    def column(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers of the Arrow file, such as `row` or `tokens`; 8 bytes an Example."""
        column = np.empty(self._stored_examples, dtype=np.int64)
        for chunk_number, end in enumerate(self._chunk_ends.tolist()):
            batch = self._batches.get_batch(chunk_number)
            column[end - batch.num_rows : end] = batch.column(name).to_numpy()
            if chunk_number % READS_PER_RELEASE == 0:
                self._release_pages()
        self._release_pages()
        return column if self._selected is None else column[self._selected]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the data files, which the column `file_number` counts from 0."""
        return tuple(self._files)

    def totals(self) -> Totals:
        """Examples, tokens and trained tokens."""
        return Totals(self._length, int(self.column("tokens").sum()), int(self.column("trained_tokens").sum()))

    def system_prompt(self, system_id: int) -> str:
        """The text that a number of the column `system_prompt` stands for."""
        self._systems.seek(0)
        line = next(islice(self._systems, system_id, None))
        text: str = json.loads(line)
        return text

    @property
    def _stored_examples(self) -> int:
        return int(self._chunk_ends[-1]) if len(self._chunk_ends) else 0

    def _chunk(self, number: int) -> StoredChunk:
        chunk = self._chunks.get(number)
        if chunk is None:
            if len(self._chunks) >= CHUNKS_KEPT:
                del self._chunks[next(iter(self._chunks))]
            chunk = self._chunks[number] = stored_chunk(self._batches.get_batch(number))
        return chunk

    def _release_pages(self) -> None:
        self._map.madvise(mmap.MADV_DONTNEED)


class HashedFile:
    """A file written once from its start, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=BUFFER_BYTES)
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> int:
        """Append bytes."""
        size_bytes = self._stream.write(data)
        self._digest.update(data)
        self.size += size_bytes
        return size_bytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def flush(self) -> None:
        """Nothing: `finish` sees everything onto the disk."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more bytes."""
        return self._stream.closed

    def finish(self) -> dict[str, Any]:
        """See the bytes onto the disk; return their number and SHA-256."""
        self._stream.flush()
        os.fsync(self._stream.fileno())  # the summary must not outlive what it sums up
        self._stream.close()
        return {"bytes": self.size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close the file as it is."""
        self._stream.close()


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
