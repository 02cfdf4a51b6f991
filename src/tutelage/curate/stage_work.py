"""The work of a stage on one stretch of rows: what is made of rows, and who has it made.

A work makes files of rows and touches no disk, so that it is the same in this process, in one beside it and on another
machine. An engine takes rows to it and puts the files in their place.
"""

from __future__ import annotations

import gc
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.entries import entries_batch
from tutelage.curate.judging import Judged, judge
from tutelage.curate.step import CorpusStep, RowStep
from tutelage.curate.store import ROWS_AT_ONCE, Rows, StoredRow, StoredRows, one_batch, rows_batch, write_batch
from tutelage.system.files import write_bytes
from tutelage.system.heap import trim_heap
from tutelage.system.workers import Workers, serve

if TYPE_CHECKING:
    import pyarrow as pa

AHEAD = 2
"""Stretches under way for each worker, so that none waits for another's slow one."""


class Question(NamedTuple):
    """Which rows, and the folder and number of what is written of them."""

    chunks: tuple[Path, ...]
    places: NDArray[np.int64]
    labels: tuple[str, ...] | None
    folder: Path
    number: int

    def batch(self) -> pa.RecordBatch:
        """The rows in question, as they lie in chunks."""
        return Rows(self.chunks, self.places, labels=self.labels).batch(0, len(self.places))


class Answer(NamedTuple):
    """How many rows were worked on, and how long each part of it took, in seconds."""

    rows: int
    seconds: dict[str, float]


File = tuple[Callable[[Path, int], Path], "pa.RecordBatch | bytes"]
"""The path of a file by its folder and number, and what it holds."""


class Result(NamedTuple):
    """What was made of a stretch: its files in the order they are written, and how long each part took, in seconds."""

    files: tuple[File, ...]
    seconds: dict[str, float]


class Work(Protocol):
    """What is made of a stretch of rows; picklable. It reads no file that other machines may not have."""

    def __call__(self, stored: Sequence[StoredRow]) -> Result:
        """Make it of the rows alone."""


class Engine(Protocol):
    """Who does the work: processes of this machine, or those of a cluster."""

    def answers(self, work: Work, questions: Sequence[Question]) -> Iterator[Answer]:
        """Do the work of all stretches, and have its files written; answers come in any order.

        Raises:
            FitError: the system ended workers, as it does when memory runs out.
        """


def rows_file(folder: Path, number: int) -> Path:
    """Rows of a stretch that go on."""
    return folder / f"rows-{number:06d}.arrow"


def entries_file(folder: Path, number: int) -> Path:
    """What was said of the rows of a stretch; it is there before `rows_file` is."""
    return folder / f"entries-{number:06d}.arrow"


def features_file(folder: Path, number: int) -> Path:
    """What a corpus step has to know of the rows of a stretch."""
    return folder / f"features-{number:06d}.arrow"


def parts_of(stored: Sequence[StoredRow]) -> Iterator[Sequence[StoredRow]]:
    """Rows of a stretch that are decoded and looked at together; one part, if there is none."""
    for start in range(0, max(1, len(stored)), ROWS_AT_ONCE):
        yield stored[start : start + ROWS_AT_ONCE]


@dataclass(frozen=True, slots=True)
class RowWork:
    """Row steps, one after the other."""

    steps: tuple[RowStep, ...]

    def __call__(self, stored: Sequence[StoredRow]) -> Result:
        """Judge the rows: what was said, and those that go on."""
        judged, started = Judged(), time.perf_counter()
        for part in parts_of(stored):
            judged.extend(judge(self.steps, part))
        judged.seconds["read"] = time.perf_counter() - started - sum(judged.seconds.values())
        started = time.perf_counter()
        files = (entries_file, entries_batch(judged.entries)), (rows_file, rows_batch(judged.rows))
        return Result(files, {**judged.seconds, "write": time.perf_counter() - started})


@dataclass(frozen=True, slots=True)
class FeatureWork:
    """What a corpus step has to know of each row."""

    step: CorpusStep

    def __call__(self, stored: Sequence[StoredRow]) -> Result:
        """Compute it."""
        batches, computed, started = [], 0.0, time.perf_counter()
        for part in parts_of(stored):
            conversations = [row.conversation for row in part]
            decoded = time.perf_counter()
            batches.append(self.step.features(conversations))
            computed += time.perf_counter() - decoded
            assert batches[-1].num_rows == len(part), f"{self.step.name} has a line for each row"
        seconds = {"read": time.perf_counter() - started - computed, f"{self.step.name} (features)": computed}
        return Result(((features_file, one_batch(batches)),), seconds)


class LocalEngine:
    """Processes of this machine, which stay from stage to stage; none is left when the block is left.

    Args:
        workers: how many; one alone is this process itself.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._open = ExitStack()
        self._pool: Workers | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def answers(self, work: Work, questions: Sequence[Question]) -> Iterator[Answer]:
        """Do the work of all stretches; answers come in the order of the questions.

        Raises:
            FitError: the system ended a worker, as it does when memory runs out.
        """
        if self._workers == 1 or len(questions) < 2:
            for question in questions:
                yield _done(work, question)
            return
        pool, under_way = self._running(), list[Any]()
        with tempfile.NamedTemporaryFile(dir=questions[0].folder, prefix=".", suffix=".work") as file:
            pickle.dump(work, file, pickle.HIGHEST_PROTOCOL)
            file.flush()
            for question in questions:
                under_way.append(pool.submit(_Task(file.name, question)))
                if len(under_way) > AHEAD * self._workers:
                    yield under_way.pop(0).result()
            for future in under_way:
                yield future.result()

    def _running(self) -> Workers:
        """The processes, started for the first stage that has work for two: each start costs half a second."""
        if self._pool is None:
            workers = Workers(__name__, None, self._workers, where=_place_of_task, fix="use fewer workers: --workers 1")
            self._pool = self._open.enter_context(workers)
        return self._pool


class _Task(NamedTuple):
    """A question for a worker, and the file of the work, which it reads once."""

    work: str
    question: Question


def work_on(work: Work, batch: pa.RecordBatch) -> Result:
    """What the work makes of rows as they lie in chunks."""
    with without_collections():
        return work(StoredRows(batch))


def place_of(question: Question) -> str:
    """Where a question is about, for an error."""
    return f"stretch {question.number} of {question.folder.name}"


@contextmanager
def without_collections() -> Iterator[None]:
    """Put off Python's search for cycles of garbage to the end of the block.

    Rows hold no cycles, and with a chunk of them in memory the search alone takes longer than decoding does.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def serve_worker() -> None:
    """The worker's side: it keeps the work of the stage that it was asked of last."""

    def prepare(_: None) -> Callable[[_Task], Answer]:
        held: dict[str, Work] = {}

        def answer(task: _Task) -> Answer:
            if task.work not in held:
                held.clear()
                held[task.work] = pickle.loads(Path(task.work).read_bytes())  # noqa: S301 from a process of ours
            done = _done(held[task.work], task.question)
            _return_memory()  # a worker waits while others work, and stays for the next stage
            return done

        return answer

    serve(prepare)


def _return_memory() -> None:
    """Give free pages of Arrow's pool and of the heap back to the system."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim_heap()


def _place_of_task(task: _Task) -> str:
    return place_of(task.question)


def _done(work: Work, question: Question) -> Answer:
    started = time.perf_counter()
    batch = question.batch()
    read = time.perf_counter() - started
    result = work_on(work, batch)
    started = time.perf_counter()
    for path_of, content in result.files:
        path = path_of(question.folder, question.number)
        if isinstance(content, bytes):
            write_bytes(path, content, shared=True)
        else:
            write_batch(path, content)
    written = time.perf_counter() - started
    return Answer(batch.num_rows, _sum({"read": read}, result.seconds, {"write": written}))


def _sum(*parts: dict[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for seconds in parts:
        for name, taken in seconds.items():
            total[name] = total.get(name, 0.0) + taken
    return total
