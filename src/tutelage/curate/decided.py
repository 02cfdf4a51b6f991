"""What a corpus step decided, on disk: the rows that go on, as places alone, and an entry for each that does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.entries import Entry, entries_batch, entry_of
from tutelage.curate.stage_work import entries_file
from tutelage.curate.step import NOT_MERGED, Decisions
from tutelage.curate.store import Rows, read_batch, write_batch
from tutelage.types import Change, Drop

VIEW = "view.arrow"


def write_decisions(folder: Path, name: str, decisions: Decisions, rows: Rows, chunk_rows: int) -> int:
    """Write which rows go on, and an entry for each that does not or that goes on more than once.

    Args:
        folder: of the stage.
        name: of the step.
        decisions: what it decided; they are held to what `Decisions` says of itself.
        rows: that it decided on.
        chunk_rows: entries of a file.

    Returns:
        The number of files of entries.
    """
    import pyarrow as pa

    order, times = _checked(name, decisions, len(rows))
    said = sorted({*np.flatnonzero(times != 1).tolist(), *decisions.remarks})
    starts = range(0, max(1, len(said)), chunk_rows)
    for number, start in enumerate(starts):
        chunk = said[start : start + chunk_rows]
        entries = [entry for index in chunk for entry in _entries(index, name, decisions, int(times[index]), rows)]
        write_batch(entries_file(folder, number), entries_batch(entries))
    words: list[str | None] = [None] * len(order)
    if decisions.labels:
        labels = {index: _labelled(rows.stored(index).labels, name, word) for index, word in decisions.labels.items()}
        words = [labels.get(index) for index in order.tolist()]
    view = pa.record_batch({"place": pa.array(order), "label": pa.array(words, pa.string())})
    write_batch(folder / VIEW, view)
    return len(starts)


def view_of(folder: Path, rows: Rows) -> Rows:
    """The rows that go on, as `write_decisions` wrote it."""
    view = read_batch(folder / VIEW)
    chosen = rows.select(view.column("place").to_numpy())
    column = view.column("label")
    if column.null_count == len(column):
        return chosen
    labels = [chosen.stored(index).labels if word is None else word for index, word in enumerate(column.to_pylist())]
    return Rows(chosen.chunks, chosen.places, source_of_file=chosen.source_of_file, labels=labels)


def _checked(name: str, decisions: Decisions, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that go on in their order, int64 [M], and how often each of all rows does, int64 [N]."""
    keep = decisions.keep
    assert keep.shape == (count,), f"{name} decides on each row"
    gone = np.flatnonzero(~keep).tolist()
    assert decisions.reasons.keys() == set(gone), f"{name} gives a reason for each row that it drops, and for no other"
    assert not decisions.remarks.keys() & set(gone), f"{name} has remarks on rows that go on, and on no other"
    kept = np.flatnonzero(keep).astype(np.int64)
    order = kept if decisions.order is None else decisions.order.astype(np.int64)
    times = np.bincount(order, minlength=count)
    assert np.array_equal(times > 0, keep), f"{name} puts all kept rows in order, and no other"
    return order, times


def _entries(index: int, name: str, decisions: Decisions, times: int, rows: Rows) -> Iterator[Entry]:
    if times == 0:
        yield _gone(index, name, decisions, rows)
    if times > 1:
        yield _copied(index, name, times, rows)
    if index in decisions.remarks:
        row, (reason, detail) = rows.stored(index), decisions.remarks[index]
        yield entry_of(Change(row.address, reason, detail), name, row, row.row)


def _gone(index: int, name: str, decisions: Decisions, rows: Rows) -> Entry:
    row = rows.stored(index)
    anchor = NOT_MERGED if decisions.merged_into is None else int(decisions.merged_into[index])
    reason = decisions.reasons[index]
    entry = entry_of(Drop(row.address, reason, decisions.evidence.get(index, "")), name, row, row.row, row.text)
    if anchor == NOT_MERGED:
        return entry
    return entry._replace(what="merged", anchor=str(rows.address(anchor)))


def _copied(index: int, name: str, times: int, rows: Rows) -> Entry:
    row = rows.stored(index)
    reason = "repeated"
    said = Change(row.address, reason, f"goes on {times} times")
    return entry_of(said, name, row, row.row)._replace(what="added", rows=times - 1)


def _labelled(labels: str, name: str, word: str | Mapping[str, float]) -> str:
    return json.dumps({**(json.loads(labels) if labels else {}), name: word}, ensure_ascii=False)
