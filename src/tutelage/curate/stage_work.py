"""The work of a stage on one stretch of rows: asked of a worker process, or done in this one, with the same result.

A question names chunks and places in them, and where the answer is written; the answer itself is small.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.entries import entries_batch
from tutelage.curate.judging import judge
from tutelage.curate.step import CorpusStep, RowStep
from tutelage.curate.store import Rows, StoredRow, rows_batch, stored_rows, write_batch
from tutelage.system.workers import Workers, serve

AHEAD = 2
"""Stretches under way for each worker, so that none waits for another's slow one."""


class Question(NamedTuple):
    """Which rows, and the folder and number of what is written of them."""

    chunks: tuple[Path, ...]
    places: NDArray[np.int64]
    labels: tuple[str, ...] | None
    folder: Path
    number: int

    def stored(self) -> list[StoredRow]:
        """The rows in question."""
        return stored_rows(Rows(self.chunks, self.places, labels=self.labels).batch(0, len(self.places)))


class Answer(NamedTuple):
    """How many rows were worked on, and how long each part of it took, in seconds."""

    rows: int
    seconds: dict[str, float]


class Work(Protocol):
    """What is done with a stretch of rows; picklable."""

    def __call__(self, question: Question) -> Answer:
        """Do it: write the files, and say how long it took."""


def rows_file(folder: Path, number: int) -> Path:
    """Rows of a stretch that go on."""
    return folder / f"rows-{number:06d}.arrow"


def entries_file(folder: Path, number: int) -> Path:
    """What was said of the rows of a stretch; it is there before `rows_file` is."""
    return folder / f"entries-{number:06d}.arrow"


def features_file(folder: Path, number: int) -> Path:
    """What a corpus step has to know of the rows of a stretch."""
    return folder / f"features-{number:06d}.arrow"


@dataclass(frozen=True, slots=True)
class RowWork:
    """Row steps, one after the other."""

    steps: tuple[RowStep, ...]

    def __call__(self, question: Question) -> Answer:
        """Judge the rows, write those that go on and what was said."""
        started = time.perf_counter()
        stored = question.stored()
        read = time.perf_counter() - started
        judged = judge(self.steps, stored)
        started = time.perf_counter()
        write_batch(entries_file(question.folder, question.number), entries_batch(judged.entries))
        write_batch(rows_file(question.folder, question.number), rows_batch(judged.rows))
        return Answer(len(stored), {"read": read, **judged.seconds, "write": time.perf_counter() - started})


@dataclass(frozen=True, slots=True)
class FeatureWork:
    """What a corpus step has to know of each row."""

    step: CorpusStep

    def __call__(self, question: Question) -> Answer:
        """Compute and write it."""
        started = time.perf_counter()
        conversations = [row.conversation for row in question.stored()]
        read = time.perf_counter() - started
        started = time.perf_counter()
        batch = self.step.features(conversations)
        assert batch.num_rows == len(conversations), f"{self.step.name} has a line for each row"
        computed = time.perf_counter() - started
        write_batch(features_file(question.folder, question.number), batch)
        return Answer(len(conversations), {"read": read, f"{self.step.name} (features)": computed})


def answers(work: Work, questions: Sequence[Question], workers: int) -> Iterator[Answer]:
    """Do the work of all stretches, in as many processes; answers come in the order of the questions.

    Raises:
        FitError: the system ended a worker, as it does when memory runs out.
    """
    if workers == 1 or len(questions) < 2:
        for question in questions:
            with without_collections():
                answer = work(question)
            yield answer
        return
    under_way: list[Any] = []
    count = min(workers, len(questions))
    with Workers(__name__, work, count, where=_where, fix="use fewer workers: --workers 1") as pool:
        for question in questions:
            under_way.append(pool.submit(question))
            if len(under_way) > AHEAD * count:
                yield under_way.pop(0).result()
        for future in under_way:
            yield future.result()


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
    """The worker's side: it starts with the work."""

    def prepare(work: Work) -> Callable[[Question], Answer]:
        def answer(question: Question) -> Answer:
            with without_collections():
                return work(question)

        return answer

    serve(prepare)


def _where(question: Question) -> str:
    return f"stretch {question.number} of {question.folder.name}"
