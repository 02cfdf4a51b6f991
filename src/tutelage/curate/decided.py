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
from tutelage.curate.store import Rows, StoredRow, read_batch, stored_rows, write_batch
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
    said = np.array(sorted({*np.flatnonzero(times != 1).tolist(), *decisions.remarks}), dtype=np.int64)
    starts = range(0, max(1, len(said)), chunk_rows)
    for number, start in enumerate(starts):
        part = said[start : start + chunk_rows]
        stored = stored_rows(rows.select(part).batch(0, len(part)))
        anchors = _anchors(part, decisions, rows)
        entries = [
            entry
            for index, row in zip(part.tolist(), stored, strict=True)
            for entry in _entries(index, row, name, decisions, (int(times[index]), anchors.get(index)))
        ]
        write_batch(entries_file(folder, number), entries_batch(entries))
    words: list[str | None] = [None] * len(order)
    if decisions.labels:
        labels = {index: _labelled(rows.label_text(index), name, word) for index, word in decisions.labels.items()}
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
    labels = [chosen.label_text(index) if word is None else word for index, word in enumerate(column.to_pylist())]
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


def _entries(
    index: int, row: StoredRow, name: str, decisions: Decisions, became: tuple[int, str | None]
) -> Iterator[Entry]:
    """What is said of a row, by how often it goes on and the address of the row that stands for it."""
    times, anchor = became
    if times == 0:
        yield _gone(index, row, anchor, name, decisions)
    if times > 1:
        yield _copied(row, name, times)
    if index in decisions.remarks:
        reason, detail = decisions.remarks[index]
        yield entry_of(Change(row.address, reason, detail), name, row, row.row)


def _anchors(part: NDArray[np.int64], decisions: Decisions, rows: Rows) -> dict[int, str]:
    """The address of the row that stands for each merged one of some rows, by row."""
    if decisions.merged_into is None:
        return {}
    anchors = decisions.merged_into[part]
    merged = anchors != NOT_MERGED
    distinct = np.unique(anchors[merged])
    stored = stored_rows(rows.select(distinct).batch(0, len(distinct)))
    address = dict(zip(distinct.tolist(), (str(row.address) for row in stored), strict=True))
    pairs = zip(part[merged].tolist(), anchors[merged].tolist(), strict=True)
    return {index: address[anchor] for index, anchor in pairs}


def _gone(index: int, row: StoredRow, anchor: str | None, name: str, decisions: Decisions) -> Entry:
    reason = decisions.reasons[index]
    entry = entry_of(Drop(row.address, reason, decisions.evidence.get(index, "")), name, row, row.row, row.text)
    return entry if anchor is None else entry._replace(what="merged", anchor=anchor)


def _copied(row: StoredRow, name: str, times: int) -> Entry:
    reason = "repeated"
    said = Change(row.address, reason, f"goes on {times} times")
    return entry_of(said, name, row, row.row)._replace(what="added", rows=times - 1)


def _labelled(labels: str, name: str, word: str | Mapping[str, float]) -> str:
    return json.dumps({**(json.loads(labels) if labels else {}), name: word}, ensure_ascii=False)
