"""The work of curation on a Ray cluster: actors that take rows and give back files, which this process writes.

Rows go out and files come back as bytes, so that no folder has to be shared. Ray's own Dataset would hold all rows of
a stage in its store, or read them from a folder that all machines see; see docs/curate.md.
"""

from __future__ import annotations

import os
import platform
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tutelage.curate.stage_keys import DECIDING_LIBRARIES, deciding_code
from tutelage.curate.stage_work import Answer, Question, Work, place_of, work_on
from tutelage.curate.store import file_bytes
from tutelage.errors import EngineError, FitError, cause_of
from tutelage.system.files import write_bytes
from tutelage.system.workers import Failure, answer_or_failure

if TYPE_CHECKING:
    import pyarrow as pa

AHEAD = 2
"""Stretches that an actor has at a time: one is on its way while it works on the other."""
ATTEMPTS = 3
"""Actors that may end over one stretch before it is held to be the reason."""
PATIENCE_SECONDS = 30
"""Without any answer, before the wait is explained."""
COMPARED_LIBRARIES = (*DECIDING_LIBRARIES, "tokenizers", "wordllama")

UnderWay = dict[Any, tuple[Any, Question]]
"""By the reference of its answer: the actor that has a stretch, and the stretch."""
Received = tuple[list[tuple[Callable[[Path, int], Path], Any]], Answer]


def versions() -> dict[str, str]:
    """What decides here what becomes of a row: the same on two machines, the same bytes."""
    found = {"Python": platform.python_version(), "Unicode": unicodedata.unidata_version, "tutelage": _own_version()}
    for name in COMPARED_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class RayEngine:
    """Actors of a cluster, each on one processor, which stay from stage to stage.

    Args:
        ray: the module, connected.
        workers: actors; None takes one for each processor of the cluster.
        log: told where nothing happens for long.
    """

    def __init__(self, ray: Any, workers: int | None, log: Callable[[str], None]) -> None:
        self._ray, self._log = ray, log
        self._workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor_class = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._starting: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._expected = versions()

    def answers(self, work: Work, questions: Sequence[Question]) -> Iterator[Answer]:
        """Do the work of all stretches and write their files; answers come as they are there.

        Raises:
            FitError: actors end over one stretch again and again.
            EngineError: the packages of a worker are others than here.
        """
        held = self._ray.put(work)
        waiting, attempts = deque(questions), Counter[int]()
        under_way: UnderWay = {}
        while waiting or under_way:
            self._start_actors(min(self._workers, len(waiting) + len(under_way)))
            self._hand_out(held, waiting, under_way)
            for finished in self._finished(under_way):
                if finished not in under_way:
                    continue  # its actor has ended meanwhile
                actor, question = under_way[finished]
                try:
                    received = self._ray.get(finished)
                except self._losses() as error:
                    lost = self._drop(actor, under_way)
                    attempts[lost[0].number] += 1
                    if attempts[lost[0].number] == ATTEMPTS:
                        raise _worn_out(lost[0], error) from error
                    waiting.extendleft(reversed(lost))
                else:
                    del under_way[finished]
                    yield _written(received, question)

    def _losses(self) -> tuple[type[Exception], ...]:
        """What Ray raises where an actor, its machine or what it made is gone."""
        known = self._ray.exceptions
        return known.RayActorError, known.ObjectLostError, known.NodeDiedError, known.OutOfMemoryError

    def _start_actors(self, count: int) -> None:
        while len(self._ready) + len(self._starting) < count:
            actor = self._actor_class.remote()
            self._starting[actor.versions.remote()] = actor

    def _hand_out(self, held: Any, waiting: deque[Question], under_way: UnderWay) -> None:
        loads = Counter(id(actor) for actor, _ in under_way.values())
        for load in range(AHEAD):
            for actor in self._ready:
                # At the end each has one of the last stretches, and none two of them.
                enough = len(waiting) > len(self._starting) if load else bool(waiting)
                if loads[id(actor)] == load and enough:
                    question = waiting.popleft()
                    under_way[actor.answer.remote([held], question.batch())] = actor, question
                    loads[id(actor)] += 1

    def _finished(self, under_way: UnderWay) -> list[Any]:
        """The answers that are there; it also takes in actors that are ready."""
        references = [*under_way, *self._starting]
        finished, _ = self._ray.wait(references, timeout=PATIENCE_SECONDS, fetch_local=False)
        if not finished and not self._ready:
            self._log(f"waiting for a free processor of the Ray cluster; {len(self._starting)} are asked for")
        answers = []
        for reference in finished:
            if reference in self._starting:
                self._take_in(reference, self._starting.pop(reference))
            else:
                answers.append(reference)
        return answers

    def _take_in(self, reference: Any, actor: Any) -> None:
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                raise _different(str(error).strip().splitlines()[-1], "the package tutelage, as here") from error
            return  # its machine went away; another is asked for
        if differing := [name for name, here in self._expected.items() if found.get(name) != here]:
            raise _different(
                ", ".join(f"{name} {found.get(name)}" for name in differing),
                ", ".join(f"{name} {self._expected[name]}" for name in differing),
            )
        self._ready.append(actor)

    def _drop(self, actor: Any, under_way: UnderWay) -> list[Question]:
        """Take an actor that has ended off the books; what it had, that which it worked on first."""
        lost = {reference: question for reference, (owner, question) in under_way.items() if owner is actor}
        for reference in lost:
            del under_way[reference]
        self._ready.remove(actor)
        self._ray.kill(actor)
        return list(lost.values())


class _Actor:
    """The worker's side. It keeps the work that it did last, so that this travels once a stage."""

    def __init__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread each: the workers are the threads
        self._held: Any = None
        self._work: Any = None

    def versions(self) -> dict[str, str]:
        """What decides on this machine."""
        return versions()

    def answer(self, held: list[Any], batch: pa.RecordBatch) -> Received | Failure:
        """What the work makes of the rows.

        Args:
            held: the work, as a reference in a list, which Ray hands on as it is.
            batch: rows as they lie in chunks.
        """
        answer: Received | Failure = answer_or_failure(self._answer, (held[0], batch))
        return answer

    def _answer(self, asked: tuple[Any, pa.RecordBatch]) -> Received:
        import ray

        reference, batch = asked
        if reference != self._held:
            self._held, self._work = reference, ray.get(reference)
        result = work_on(self._work, batch)
        started = perf_counter()
        files = [(path_of, file_bytes(content)) for path_of, content in result.files]
        seconds = dict(result.seconds)
        seconds["write"] = seconds.get("write", 0.0) + perf_counter() - started
        return files, Answer(batch.num_rows, seconds)


def _written(received: Received | Failure, question: Question) -> Answer:
    if isinstance(received, Failure):
        raise received.raised()
    files, answer = received
    for path_of, content in files:
        write_bytes(path_of(question.folder, question.number), memoryview(content))
    return answer


def _worn_out(question: Question, error: Exception) -> FitError:
    return FitError(
        f"{ATTEMPTS} workers of the Ray cluster ended over the same rows, most likely for want of memory",
        where=place_of(question), found=cause_of(error),
        fix="give each worker more memory: fewer processors a machine, or --engine local --workers 1",
    )  # fmt: skip


def _different(found: str, expected: str) -> EngineError:
    return EngineError(
        "A worker of the Ray cluster does not have what this machine has, and would make other rows",
        where="the environment of the workers", found=found, expected=expected,
        fix="install the same versions on every machine of the cluster",
    )  # fmt: skip


def _own_version() -> str:
    return f"with the code {deciding_code()[:12]}"
