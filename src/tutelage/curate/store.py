"""Rows on disk: chunks in Arrow's IPC files, memory-mapped, and a view of those rows of them that go on.

A chunk is written whole or not at all. A view is the chunks with the places of its rows, so a step that only drops or
orders rows writes none.

Shape legend: N = rows of a view.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.row_json import conversation_of
from tutelage.system.files import publish
from tutelage.types import Address, Conversation, Unit

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 10_000
ROWS_AT_ONCE = 1_000
"""Rows that are decoded together: enough for what looks at them side by side, and a tenth of a chunk's memory."""
CHUNK_CHARACTERS = 64 << 20
"""A chunk ends with the row that reaches either bound, so that a worker's memory does not grow with the rows."""


class StoredRow(NamedTuple):
    """A row as it lies in a chunk.

    Attributes:
        text: its JSON object (`row_json`).
        file: of its address, as `number` and `unit` are.
        row: which row of the input it is, from 0.
        part: which of the rows that a step made of that one.
        labels: a JSON object of what the row says of itself (its metadata) and steps say of it, or empty.
    """

    text: str
    file: str
    number: int
    unit: str
    row: int
    part: int = 0
    labels: str = ""

    @property
    def address(self) -> Address:
        """Where it came from."""
        return Address(self.file, self.number, cast("Unit", self.unit))

    @property
    def conversation(self) -> Conversation:
        """The row, decoded."""
        return conversation_of(self.text, self.address)


def value_under(labels: Mapping[str, Any], name: str) -> Any:
    """What labels have under a name, `step.number` for one of several; None where there is nothing, or several."""
    value: Any = labels
    for part in [name] if name in labels else name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if isinstance(value, Mapping) else value


def rows_schema() -> pa.Schema:
    """The columns of a chunk: the fields of `StoredRow`."""
    import pyarrow as pa

    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("text", pa.large_string()),
            ("file", words),
            ("number", pa.int64()),
            ("unit", words),
            ("row", pa.int64()),
            ("part", pa.int32()),
            ("labels", pa.string()),
        ]
    )


def rows_batch(rows: Sequence[StoredRow]) -> pa.RecordBatch:
    """Rows as the one batch of a chunk."""
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(StoredRow._fields)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, rows_schema(), strict=True)],
        schema=rows_schema(),
    )


def write_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Write a batch as an Arrow file of its own, whole or not at all.

    Raises:
        OSError: the disk is full or refuses.
    """
    import pyarrow as pa

    # A worker of a process that was killed may still be at the same file.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        publish(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def file_bytes(content: pa.RecordBatch | bytes) -> pa.Buffer:
    """What `write_batch` would write, or the bytes themselves, in memory."""
    import pyarrow as pa

    if isinstance(content, bytes):
        return pa.py_buffer(content)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, content.schema) as writer:
        writer.write_batch(content)
    return sink.getvalue()


def read_batch(path: Path) -> pa.RecordBatch:
    """The one batch of a file, memory-mapped."""
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return reader.get_batch(0)


def read_table(paths: Sequence[Path]) -> pa.Table:
    """The batches of several files with one schema, memory-mapped."""
    import pyarrow as pa

    return pa.Table.from_batches([read_batch(path) for path in paths])


def one_batch(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, of which there is at least one, as one."""
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    whole = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    return whole[0] if whole else batches[0]


class Rows:
    """Rows of chunks in some order, read as they are asked for; nothing but their places is held.

    Args:
        chunks: files of `write_batch`.
        places: int64 [N]: where each row stands when all chunks are laid end to end; None takes all.
        source_of_file: the source, as the user named it, by the file that addresses name.
        labels: the labels of each row, in place of those in the chunks; None leaves them.
    """

    def __init__(
        self,
        chunks: Sequence[Path],
        places: NDArray[np.int64] | None = None,
        *,
        source_of_file: Mapping[str, str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.chunks, self.labels = tuple(chunks), None if labels is None else tuple(labels)
        self.source_of_file = dict(source_of_file or {})
        self._batches = [read_batch(path) for path in self.chunks]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.places = np.arange(self._starts[-1], dtype=np.int64) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def stored(self, index: int) -> StoredRow:
        """A row as it lies in its chunk."""
        place = int(self.places[index])
        chunk = bisect_right(self._starts, place) - 1
        batch, line = self._batches[chunk], place - int(self._starts[chunk])
        row = StoredRow(*(column[line].as_py() for column in batch.columns))
        return row if self.labels is None else row._replace(labels=self.labels[index])

    def conversation(self, index: int) -> Conversation:
        """A row, decoded."""
        return self.stored(index).conversation

    def address(self, index: int) -> Address:
        """Where a row came from."""
        return self.stored(index).address

    def find(self, addresses: Collection[str]) -> dict[str, int]:
        """Where the rows of these addresses stand in the view, by address; the first, where several came of one row."""
        numbers = [int(re.findall(r"\d+", address)[-1]) for address in addresses]
        of_chunks = [batch.column("number").to_numpy() for batch in self._batches]
        of_all = np.concatenate([np.zeros(0, np.int64), *of_chunks])[self.places]
        found: dict[str, int] = {}
        for index in np.flatnonzero(np.isin(of_all, numbers)).tolist():
            address = str(self.address(index))
            if address in addresses:
                found.setdefault(address, index)
        return found

    def source(self, index: int) -> str:
        """The source of a row, as the user named it."""
        file = self.stored(index).file
        return self.source_of_file.get(file, file)

    @cached_property
    def sources(self) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """The names of all sources, and which of them each row is of: int32 [N]."""
        names: dict[str, int] = {}
        codes = np.zeros(int(self._starts[-1]), dtype=np.int32)
        for start, batch in zip(self._starts, self._batches, strict=False):
            column = batch.column("file")
            files = [self.source_of_file.get(file, file) for file in column.dictionary.to_pylist()]
            codes_of_files = np.array([names.setdefault(name, len(names)) for name in files] or [0], dtype=np.int32)
            codes[start : start + batch.num_rows] = codes_of_files[column.indices.to_numpy()]
        return tuple(names), codes[self.places]

    def label_values(self, name: str) -> list[Any]:
        """What each row says of itself, or a step of it, under a name (`value_under`); None where nothing does.

        `file` is that of its address, whatever it says of itself.
        """
        if name == "file":
            return self._files()
        values = []
        for index in range(len(self)):
            text = self.label_text(index)
            values.append(value_under(json.loads(text), name) if text else None)
        return values

    def _files(self) -> list[str]:
        values: list[str] = []
        for batch in self._batches:
            values += batch.column("file").to_pylist()
        return [values[place] for place in self.places.tolist()]

    def label_text(self, index: int) -> str:
        """The labels of a row, without the row."""
        if self.labels is not None:
            return self.labels[index]
        place = int(self.places[index])
        chunk = bisect_right(self._starts, place) - 1
        return str(self._batches[chunk].column("labels")[place - int(self._starts[chunk])].as_py())

    @cached_property
    def input_rows(self) -> NDArray[np.int64]:
        """Which row of the input each is, or is a part of, int64 [N]."""
        numbers = [batch.column("row").to_numpy() for batch in self._batches]
        return cast("NDArray[np.int64]", np.concatenate([np.zeros(0, np.int64), *numbers])[self.places])

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """Bytes of each row's JSON object, int64 [N]."""
        import pyarrow.compute as pc

        lengths = [pc.binary_length(batch.column("text")).to_numpy() for batch in self._batches]
        return cast("NDArray[np.int64]", np.concatenate([np.zeros(0, np.int64), *lengths])[self.places])

    def select(self, indices: NDArray[np.int64]) -> Rows:
        """The view of some of these rows, in the order of `indices`, each as often as it is named."""
        labels = None if self.labels is None else [self.labels[index] for index in indices.tolist()]
        return Rows(self.chunks, self.places[indices], source_of_file=self.source_of_file, labels=labels)

    def stretch(self, start: int, stop: int) -> Rows:
        """A part of the view, with those chunks alone that it reads."""
        places = self.places[start:stop]
        chunks = np.searchsorted(self._starts, places, side="right") - 1
        needed, new_number = np.unique(chunks, return_inverse=True)
        sizes = np.array([self._batches[chunk].num_rows for chunk in needed], dtype=np.int64)
        new_starts = np.cumsum(sizes) - sizes
        return Rows(
            [self.chunks[chunk] for chunk in needed],
            places - self._starts[chunks] + new_starts[new_number],
            source_of_file=self.source_of_file,
            labels=None if self.labels is None else self.labels[start:stop],
        )

    def blocks(self, *, rows: int = CHUNK_ROWS, characters: int = CHUNK_CHARACTERS) -> list[tuple[int, int]]:
        """Stretches of the view that are worked on together: at most `rows` rows, and cut where `characters` is met."""
        ends = np.cumsum(self.characters)
        stretches, start = [], 0
        while start < len(self):
            before = int(ends[start - 1]) if start else 0
            by_size = int(np.searchsorted(ends, before + characters)) + 1
            stop = min(len(self), start + rows, max(start + 1, by_size))
            stretches.append((start, stop))
            start = stop
        return stretches

    def batch(self, start: int, stop: int) -> pa.RecordBatch:
        """The rows of a stretch as one batch."""
        import pyarrow as pa

        places = self.places[start:stop]
        chunks = np.searchsorted(self._starts, places, side="right") - 1
        cuts = np.flatnonzero(np.diff(chunks)) + 1
        pieces = []
        for run in np.split(np.arange(len(places)), cuts) if len(places) else []:
            chunk = int(chunks[run[0]])
            pieces.append(self._batches[chunk].take(pa.array(places[run] - self._starts[chunk])))
        table = pa.Table.from_batches(pieces, schema=rows_schema()).unify_dictionaries().combine_chunks()
        batches = table.to_batches()
        batch = batches[0] if batches else rows_batch([])
        if self.labels is None:
            return batch
        column = batch.schema.get_field_index("labels")
        return batch.set_column(column, batch.schema.field(column), pa.array(self.labels[start:stop], pa.string()))

    def __iter__(self) -> Iterator[StoredRow]:
        for start, stop in self.blocks():
            yield from stored_rows(self.batch(start, stop))


class StoredRows(Sequence[StoredRow]):
    """The rows of a batch, each decoded when it is asked for, or as many together as a slice has.

    Args:
        batch: as it lies in a chunk.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @overload
    def __getitem__(self, index: int) -> StoredRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredRow]: ...
    def __getitem__(self, index: int | slice) -> StoredRow | list[StoredRow]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return stored_rows(self._batch.slice(places, 1))[0]
        assert places.step == 1, "rows that follow one another"
        return stored_rows(self._batch.slice(places.start, len(places)))

    def __iter__(self) -> Iterator[StoredRow]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self[start : start + ROWS_AT_ONCE]


def stored_rows(batch: pa.RecordBatch) -> list[StoredRow]:
    """The rows of a batch."""
    return list(map(StoredRow._make, zip(*map(_values, batch.columns), strict=True)))


def _values(column: pa.Array) -> list[Any]:
    """The values of a column without nulls; by way of NumPy, or the few that there are, as Arrow makes them singly."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        names = column.dictionary.to_pylist()
        return [names[index] for index in column.indices.to_numpy().tolist()]
    values: list[Any] = column.to_numpy().tolist() if pa.types.is_integer(column.type) else column.to_pylist()
    return values
