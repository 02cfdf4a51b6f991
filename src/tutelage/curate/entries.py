"""Entries of the books of curation: what became of a row at a step, on disk beside the rows of its chunk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from tutelage.types import Address, Change, Drop, Unit

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.curate.store import StoredRow

What = Literal["dropped", "merged", "changed", "added"]
"""Merged: dropped for a row that stands for it. Added: more rows came of it than there were."""
_encode = json.JSONEncoder(ensure_ascii=False).encode
GONE: Final = ("dropped", "merged")
READ: Final = "read"
"""What reading the files is called beside the steps."""


class Entry(NamedTuple):
    """What became of one row at one step.

    Attributes:
        what: see `What`.
        step: the step's name; `READ` for what the reader said.
        reason: short and stable.
        detail: the evidence, or what was changed.
        file: of the row's address, as `number` and `unit` are.
        row: which row of the input it is, from 0.
        part: see `StoredRow`.
        text: the row's JSON object, of a row that is gone; None where it could not be read at all.
        anchor: address of the row that stands for a merged one.
        rows: rows that came of it beside itself, of an added one.
        labels: what the row says of itself and steps said of it, as `StoredRow` has it, of a row that is gone.
    """

    what: What
    step: str
    reason: str
    detail: str
    file: str
    number: int
    unit: str
    row: int
    part: int = 0
    text: str | None = None
    anchor: str | None = None
    rows: int = 0
    labels: str = ""

    @property
    def address(self) -> Address:
        """Of the row."""
        return Address(self.file, self.number, cast("Unit", self.unit))

    def line(self) -> str:
        """The entry as a line of `ledger.jsonl`, without the row itself."""
        record: dict[str, Any] = {
            self.what: self.reason,
            "step": self.step,
            "address": str(self.address),
            "row": self.row,
        }
        if self.part:
            record["part"] = self.part
        if self.anchor is not None:
            record["anchor"] = self.anchor
        if self.rows:
            record["rows"] = self.rows
        return _encode({**record, "detail": self.detail}) + "\n"


def entry_of(said: Drop | Change, step: str, row: StoredRow | None, number: int, text: str | None = None) -> Entry:
    """The entry of what a step, or the reader, said of a row.

    Args:
        said: the drop or change.
        step: its name.
        row: the row; None where the reader could make none.
        number: which row of the input it is.
        text: the row as it was dropped.
    """
    what: What = "dropped" if isinstance(said, Drop) else "changed"
    address = said.address if row is None else row.address
    part = 0 if row is None else row.part
    labels = "" if row is None or text is None else row.labels
    return Entry(
        what, step, said.reason, said.detail, address.file, address.number, address.unit, number, part, text,
        labels=labels,
    )  # fmt: skip


def entries_schema() -> pa.Schema:
    """The columns of a file of entries: the fields of `Entry`."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        **dict.fromkeys(("what", "step", "reason", "file", "unit"), pa.dictionary(pa.int32(), pa.string())),
        **dict.fromkeys(("detail", "text", "anchor", "labels"), pa.large_string()),
        **dict.fromkeys(("number", "row"), pa.int64()),
        **dict.fromkeys(("part", "rows"), pa.int32()),
    }
    return pa.schema([(name, types[name]) for name in Entry._fields])


def entries_batch(entries: Sequence[Entry]) -> pa.RecordBatch:
    """Entries as the one batch of a file."""
    import pyarrow as pa

    columns = list(zip(*entries, strict=True)) if entries else [()] * len(Entry._fields)
    schema = entries_schema()
    arrays = [pa.array(map(_writable, column), field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def entries_in(path: Path, lines: Sequence[int] | None = None) -> Iterable[Entry]:
    """The entries of a file, in their order; of those on `lines` (from 0) alone where they are given."""
    import pyarrow as pa

    from tutelage.curate.store import read_batch

    batch = read_batch(path)
    if lines is not None:
        batch = batch.take(pa.array(lines, pa.int64()))
    return map(Entry._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def counts_in(path: Path) -> dict[tuple[str, str, str], int]:
    """Rows by (step, what, reason) of a file, without reading its texts; of added ones, how many were added."""
    import pyarrow as pa

    from tutelage.curate.store import read_batch

    batch = read_batch(path)
    table = pa.Table.from_batches([batch.select(["step", "what", "reason", "rows"])])
    counts: dict[tuple[str, str, str], int] = {}
    for group in table.group_by(["step", "what", "reason"]).aggregate([([], "count_all"), ("rows", "sum")]).to_pylist():
        key = group["step"], group["what"], group["reason"]
        counts[key] = group["rows_sum"] if group["what"] == "added" else group["count_all"]
    return counts


def _writable(value: Any) -> Any:
    """Half of a surrogate pair has no UTF-8; its escape says the same."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
