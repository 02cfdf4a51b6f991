"""A stretch of the rows that are kept as a part of the output, and how long its texts are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.request import FileFormat
from tutelage.curate.row_json import with_metadata
from tutelage.curate.stage_work import File, Result, parts_of
from tutelage.curate.store import StoredRow, one_batch, read_batch
from tutelage.curate.texts import message_text
from tutelage.curate.token_counts import token_counts
from tutelage.curate.word_hashes import spaced_word_counts
from tutelage.types import Conversation

SIZE_COLUMNS = ("prompt words", "reply words")
TOKENS = "tokens"
_quoted = lru_cache(maxsize=1000)(json.JSONEncoder(ensure_ascii=False).encode)


def part_file(folder: Path, number: int) -> Path:
    """The rows of a part."""
    return folder / f"part-{number:06d}"


def _sizes_file(folder: Path, number: int) -> Path:
    return folder / f"sizes-{number:06d}.arrow"


@dataclass(frozen=True, slots=True)
class OutputWork:
    """The rows of a stretch as they stand in the output, and the lengths of their texts.

    Attributes:
        file_format: of the part: lines, or an Arrow file of one batch.
        tokenizer: content of a tokenizer.json to count tokens with, without special ones; None counts none.
    """

    file_format: FileFormat
    tokenizer: str | None

    def __call__(self, stored: Sequence[StoredRow]) -> Result:
        """Both files, the part last."""
        return Result(((_sizes_file, self._sizes(stored)), self._part(stored)), {})

    def _part(self, stored: Sequence[StoredRow]) -> File:
        if self.file_format == "jsonl":
            return part_file, "".join([output_line(row) for row in stored]).encode()
        from tutelage.curate.parquet_rows import parquet_batch

        return part_file, parquet_batch([(row.text, metadata_of(row)) for row in stored])

    def _sizes(self, stored: Sequence[StoredRow]) -> Any:
        import pyarrow as pa

        batches = []
        for part in parts_of(stored):
            files = pa.array([row.file for row in part], pa.string())
            lengths = row_lengths([row.conversation for row in part], self.tokenizer)
            columns = {name: pa.array(counts) for name, counts in lengths.items()}
            batches.append(pa.record_batch({"file": files, **columns}))
        return one_batch(batches)


def output_line(row: StoredRow) -> str:
    """A row as a line of the output; of one that has nothing but its address, without a dict made for it."""
    if row.labels or row.part:
        return f"{with_metadata(row.text, metadata_of(row))}\n"
    address = f'"file": {_quoted(row.file)}, "number": {row.number}, "unit": "{row.unit}", "row": {row.row}'
    return f'{row.text[:-1]}, "metadata": {{{address}}}}}\n'


def metadata_of(row: StoredRow) -> dict[str, Any]:
    """Where a row came from, and what it says of itself and steps say of it: `metadata` in the output."""
    metadata: dict[str, Any] = json.loads(row.labels) if row.labels else {}
    address = {"file": row.file, "number": row.number, "unit": row.unit, "row": row.row}
    metadata = address | metadata | address  # a row's own field of such a name was that of an earlier curation
    if row.part:
        metadata["part"] = row.part
    return metadata


def sizes_of(
    folders: Sequence[tuple[Path, int]], source_of_file: Mapping[str, str]
) -> dict[str, dict[str, NDArray[np.int32]]]:
    """Lengths of all rows by source and column: what `OutputWork` counted, in the order of the rows.

    Args:
        folders: of parts, each with how many there are.
        source_of_file: the source, as the user named it, by the file that addresses name.
    """
    pieces: dict[str, dict[str, list[NDArray[np.int32]]]] = defaultdict(lambda: defaultdict(list))
    for folder, number in ((folder, number) for folder, parts in folders for number in range(parts)):
        batch = read_batch(_sizes_file(folder, number))
        files = np.array(batch.column("file").to_pylist(), dtype=object)
        sources = np.array([source_of_file.get(file, file) for file in files], dtype=object)
        for source in dict.fromkeys(sources.tolist()):
            chosen = np.flatnonzero(sources == source)
            for name in batch.schema.names[1:]:
                pieces[source][name].append(batch.column(name).to_numpy()[chosen])
    return {
        source: {name: np.concatenate(arrays) for name, arrays in columns.items()} for source, columns in pieces.items()
    }


def row_lengths(rows: Sequence[Conversation], tokenizer: str | None) -> dict[str, NDArray[np.int32]]:
    """How long rows are, int32 [rows], by what is counted: `SIZE_COLUMNS`, and `TOKENS` where there is a tokenizer.

    Args:
        rows: any number.
        tokenizer: as `OutputWork` has it.
    """
    lengths = dict(zip(SIZE_COLUMNS, _word_counts(rows), strict=True))
    if tokenizer is not None:
        texts = ["\n".join(map(message_text, row.messages)) for row in rows]
        lengths[TOKENS] = np.array(token_counts(texts, tokenizer), dtype=np.int32)
    return lengths


def _word_counts(rows: Sequence[Conversation]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Words between white space of each row: of what is asked (every turn that is not learned), and what is learned."""
    texts = [message_text(message) for row in rows for message in row.messages]
    is_learned = np.array([message.role in ("assistant", "text") for row in rows for message in row.messages], np.bool_)
    row_of_text = np.repeat(np.arange(len(rows)), [len(row.messages) for row in rows])
    counts = spaced_word_counts(texts)
    asked, learned = (
        np.bincount(row_of_text[side], counts[side], len(rows)).astype(np.int32) for side in (~is_learned, is_learned)
    )
    return asked, learned
