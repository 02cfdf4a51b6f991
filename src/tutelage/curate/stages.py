"""The stages of a curation, each a folder whose name says what led to it: what is there is not computed again.

A stage folder is named by a hash of the input, the settings and the code up to it. Its files are written whole or not
at all, and `done.json` last, so that after a kill the same command goes on with the files that are there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.curate.decided import view_of, write_decisions
from tutelage.curate.entries import READ, Entry, counts_in, entries_batch, entries_in, entry_of
from tutelage.curate.reading_position import ReadingPosition
from tutelage.curate.row_json import row_json
from tutelage.curate.stage_work import (
    Engine,
    FeatureWork,
    Question,
    RowWork,
    Work,
    entries_file,
    features_file,
    rows_file,
    without_collections,
)
from tutelage.curate.step import CorpusStep, Decisions, Progress, RowStep
from tutelage.curate.store import (
    CHUNK_CHARACTERS,
    ROWS_AT_ONCE,
    Rows,
    StoredRow,
    one_batch,
    read_table,
    rows_batch,
    write_batch,
)
from tutelage.ledger import Ledger
from tutelage.system.files import write_bytes
from tutelage.system.heap import trim_heap
from tutelage.types import Change, Conversation, Drop

if TYPE_CHECKING:
    import pyarrow as pa

DONE = "done.json"
READING = "reading, MB"
Read = Callable[[Ledger], Iterator[Conversation]]


@dataclass(slots=True)
class Stage:
    """A finished stage.

    Attributes:
        names: of its steps.
        folder: of its files.
        rows: those that left it.
        rows_in: how many came to it.
        blocks: how many files of entries it has.
        notes: what the reader said of whole files, or a step of all rows.
        report: what a corpus step found (`Decisions.report`).
        outside: what it learned that no key before it knows (`Decisions.outside`).
        incomplete: why it is taken again the next time; empty where it is done.
    """

    names: tuple[str, ...]
    folder: Path
    rows: Rows
    rows_in: int
    blocks: int
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    outside: str = ""
    incomplete: str = ""

    def entries(self) -> Iterator[Entry]:
        """What was said of its rows, in their order."""
        for number in range(self.blocks):
            yield from entries_in(entries_file(self.folder, number))

    def counts(self) -> Counter[tuple[str, str, str]]:
        """Rows by (step, what, reason)."""
        total: Counter[tuple[str, str, str]] = Counter()
        for number in range(self.blocks):
            total.update(counts_in(entries_file(self.folder, number)))
        return total


@dataclass(slots=True)
class Workshop:
    """How stages are computed: by whom, in chunks of how many rows, and who hears of it.

    `computed` counts the files that were written, by stage; `seconds` sums what each step took in all processes.
    """

    engine: Engine
    chunk_rows: int
    progress: Progress = lambda _title, _done, _total: None
    computed: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def read(self, folder: Path, read: Read, source_of_file: dict[str, str], position: ReadingPosition) -> Stage:
        """Read all rows into chunks. Rows are read anew where the stage is not done; chunks that are there stay."""
        if (done := _done(folder)) is None:
            folder.mkdir(parents=True, exist_ok=True)
            ledger = Ledger()
            blocks = self._read_into(folder, read(ledger), ledger, position)
            done = {"rows_in": ledger.rows_in, "blocks": blocks, "notes": ledger.notes}
            _finish(folder, done)
        chunks = [rows_file(folder, number) for number in range(done["blocks"])]
        rows = Rows(chunks, source_of_file=source_of_file)
        return Stage((READ,), folder, rows, done["rows_in"], done["blocks"], tuple(done["notes"]))

    def _read_into(self, folder: Path, rows: Iterator[Conversation], ledger: Ledger, position: ReadingPosition) -> int:
        self.progress(READING, 0, position.total)
        chunk = _ReadChunk()
        ledger.listener = lambda said: chunk.said.append((said, max(0, ledger.rows_in - 1)))
        for block in count():
            with without_collections():
                ended = chunk.fill(rows, ledger, self.chunk_rows)
            entries, stored = chunk.taken()
            if not rows_file(folder, block).exists():
                write_batch(entries_file(folder, block), entries)
                write_batch(rows_file(folder, block), stored)
                self.computed[READ] += 1
            self.progress(READING, position.total if ended else position.done(ledger.rows_in), position.total)
            if ended:
                return block + 1
        raise AssertionError("a count has no end")

    def judge(self, folder: Path, steps: Sequence[RowStep], rows: Rows) -> Stage:
        """Take rows through row steps that follow one another, in one pass."""
        names = tuple(step.name for step in steps)
        blocks = rows.blocks(rows=self.chunk_rows)
        if _done(folder) is None:
            folder.mkdir(parents=True, exist_ok=True)
            self.work(RowWork(tuple(steps)), folder, rows, blocks, rows_file, ", ".join(names))
            _finish(folder, {"blocks": len(blocks)})
        chunks = [rows_file(folder, number) for number in range(len(blocks))]
        return Stage(names, folder, Rows(chunks, source_of_file=rows.source_of_file), len(rows), len(blocks))

    def decide(self, folder: Path, step: CorpusStep, rows: Rows) -> Stage:
        """Have a corpus step judge all rows; no row is written, but which of them go on, and in which order."""
        done = _done(folder)
        if done is None or done["incomplete"]:
            folder.mkdir(parents=True, exist_ok=True)
            blocks = rows.blocks(rows=self.chunk_rows)
            self.work(FeatureWork(step), folder, rows, blocks, features_file, f"{step.name}, looking at rows")
            self.progress(f"{step.name}, deciding", 0, None)
            paths = [features_file(folder, number) for number in range(len(blocks))]
            decisions = step.decide(read_table(paths), rows) if paths else Decisions(np.zeros(0, dtype=np.bool_))
            blocks_written = write_decisions(folder, step.name, decisions, rows, self.chunk_rows)
            done = {
                "blocks": blocks_written, "report": decisions.report, "notes": list(decisions.notes),
                "outside": decisions.outside, "incomplete": decisions.incomplete,
            }  # fmt: skip
            for path in paths:
                path.unlink()
            del decisions
            trim_heap()
            _finish(folder, done)
            self.computed[step.name] += 1
        view, notes = view_of(folder, rows), tuple(done["notes"])
        return Stage(
            (step.name,), folder, view, len(rows), done["blocks"], notes, done["report"], done["outside"],
            done["incomplete"],
        )  # fmt: skip

    def work(
        self,
        work: Work,
        folder: Path,
        rows: Rows,
        blocks: Sequence[tuple[int, int]],
        target: Callable[[Path, int], Path],
        title: str,
    ) -> None:
        """Have the work done of every stretch whose file is not there.

        Args:
            work: what is done.
            folder: for its files.
            rows: all of them.
            blocks: the stretches (`Rows.blocks`).
            target: the file that is there when the work of a stretch is done.
            title: for those who wait.
        """
        for abandoned in folder.glob(".*"):
            abandoned.unlink(missing_ok=True)  # half a file of a process that was killed
        questions = []
        for number, (start, stop) in enumerate(blocks):
            if not target(folder, number).exists():
                part = rows.stretch(start, stop)
                questions.append(Question(part.chunks, part.places, part.labels, folder, number))
        done = len(rows) - sum(len(question.places) for question in questions)
        self.progress(title, done, len(rows))
        for answer in self.engine.answers(work, questions):
            done += answer.rows
            self.computed[title] += 1
            self.seconds.update(answer.seconds)
            self.progress(title, done, len(rows))


def outside_of(folder: Path) -> str:
    """What a stage that is there whole learned outside (`Decisions.outside`); empty where it is not, or did not."""
    done = _done(folder) or {}
    return "" if done.get("incomplete") else str(done.get("outside", ""))


@dataclass(slots=True)
class _ReadChunk:
    """Rows of a chunk as they are read, and what the reader says of them. A thousand at a time they become columns."""

    stored: list[StoredRow] = field(default_factory=list)
    said: list[tuple[Drop | Change, int]] = field(default_factory=list)
    _columns: list[tuple[pa.RecordBatch, pa.RecordBatch]] = field(default_factory=list)

    def fill(self, rows: Iterator[Conversation], ledger: Ledger, most_rows: int) -> bool:
        """Take rows until the chunk is full; whether they ended."""
        characters = counted = 0
        while counted + len(self.stored) + len(self.said) < most_rows and characters < CHUNK_CHARACTERS:
            row = next(rows, None)
            if row is None:
                return True
            address, text = row.address, row_json(row)
            characters += len(text)
            labels = json.dumps(dict(row.metadata)) if row.metadata else ""
            self.stored.append(
                StoredRow(text, address.file, address.number, address.unit, ledger.rows_in - 1, labels=labels)
            )
            if len(self.stored) >= ROWS_AT_ONCE:
                counted += len(self.stored) + len(self.said)
                self._make_columns()
        return False

    def taken(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """The entries and the rows of the chunk, which is empty then."""
        self._make_columns()
        entries, stored = (one_batch(batches) for batches in zip(*self._columns, strict=True))
        self._columns.clear()
        return entries, stored

    def _make_columns(self) -> None:
        """What is said of a row is said before it comes, so both are here."""
        by_number = {row.row: row for row in self.stored} if self.said else {}
        entries = [entry_of(said, READ, by_number.get(number), number) for said, number in self.said]
        self._columns.append((entries_batch(entries), rows_batch(self.stored)))
        self.stored.clear()
        self.said.clear()


def _done(folder: Path) -> dict[str, Any] | None:
    path = folder / DONE
    if not path.is_file():
        return None
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return done


def _finish(folder: Path, done: dict[str, Any]) -> None:
    write_bytes(folder / DONE, json.dumps(done, ensure_ascii=False).encode("utf-8", "backslashreplace"))
