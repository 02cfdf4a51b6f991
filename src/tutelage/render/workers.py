"""Conversations -> proven Examples in several processes, in the order of the rows.

Workers are fresh interpreters behind a pipe: no fork of a parent with threads, no need for a `__main__` guard in the
caller's script, and none outlives its parent, whose end closes the pipe. A row's conversation goes out, its Examples
come back as bytes (`compact`), its ledger entries as they are.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any

from tutelage.errors import FitError
from tutelage.ledger import Ledger
from tutelage.render.example_codec import example_from_bytes, example_to_bytes
from tutelage.render.renderer import Renderer
from tutelage.render.row_size import too_deep
from tutelage.types import Change, Conversation, Drop, Example, Proven

CHUNK_ROWS = 256
"""Rows proven together: enough to keep a tokenizer's threads busy, few enough to stream."""
ROWS_WORTH_WORKERS = 4000
"""Fewer rows are proven sooner than workers start (about 0.3 s)."""
MAX_DEFAULT_WORKERS = 4
"""A worker holds about 100 MB; more of them are started only when asked for."""
CHUNKS_AHEAD = 3
"""Chunks under way for each worker, so that none waits for another's slow row."""

Entry = Drop | Change
Outcome = Proven | Drop
Chunk = list[Conversation | Entry]
ProvenRow = tuple[Conversation, tuple[Example, ...]]

_LENGTH_BYTES = 8
_START = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = json.loads(sys.argv[1]); "
    "from tutelage.render.workers import serve; serve()"
)


@dataclass(frozen=True, slots=True)
class _PackedOutcome:
    """What a proven row became: its Examples as bytes, and the ledger's remarks."""

    examples: tuple[bytes, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _Failure:
    """An exception on its way from a worker to the parent, with where it came from."""

    error: Exception
    trace: str


Answer = list[_PackedOutcome | Drop] | _Failure


def examples(
    rows: Iterable[Conversation | Entry], renderer: Renderer, ledger: Ledger, *, workers: int | None = None
) -> Generator[ProvenRow]:
    """Prove conversations as they come; ledger entries are made in the order of the rows, whoever proves them.

    Args:
        rows: conversations; entries among them are for the ledger, when their turn comes.
        renderer: proves them; it is pickled once for each worker.
        ledger: takes drops and changes.
        workers: processes that prove; 1 proves in this one, None takes one for each core, up to 4. None are started
            for fewer than 4,000 rows.

    Raises:
        FitError: the system ended a worker, as it does when memory runs out.
        RuntimeError: a worker ended by itself; its last words are on stderr.
    """
    source = iter(rows)
    first = list(islice(source, ROWS_WORTH_WORKERS))
    enough = len(first) == ROWS_WORTH_WORKERS
    chunks = _chunks(chain(first, source))
    del first, source  # or the first rows would stay in memory to the end
    process_count = default_workers() if workers is None else workers
    outcomes = (
        _by_workers(chunks, renderer, process_count)
        if enough and process_count > 1
        else _in_this_process(chunks, renderer)
    )
    with closing(outcomes):  # a traceback that someone keeps would keep the processes as well
        for chunk, proven in outcomes:
            yield from _record_outcomes(chunk, iter(proven), ledger)


def default_workers() -> int:
    """One for each core this process may use, up to `MAX_DEFAULT_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_WORKERS)


def serve() -> None:
    """The worker's side: a renderer first, then chunks, until the pipe closes."""
    inward, outward = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints in this process must not land among the answers
    renderer = _receive(inward)
    with suppress(BrokenPipeError):
        while (conversations := _receive(inward)) is not None:
            _send(outward, _prove_chunk(renderer, conversations))
    os._exit(0)  # nothing to tidy; an ordinary exit would try once more to write to a parent that is gone


def _prove_chunk(renderer: Renderer, conversations: list[Conversation]) -> Answer:
    vocabulary_size = renderer.tokenizer.vocabulary_size
    try:
        return [_pack_outcome(outcome, vocabulary_size) for outcome in renderer.prove(conversations)]
    except Exception as error:  # noqa: BLE001 it is raised again where the rows came from
        return _Failure(_picklable(error), traceback.format_exc())


def _record_outcomes(
    chunk: Sequence[Conversation | Entry], outcomes: Iterator[Outcome], ledger: Ledger
) -> Iterator[ProvenRow]:
    for row in chunk:
        if not isinstance(row, Conversation):
            _add_entry(ledger, row)
            continue
        outcome = next(outcomes)
        if isinstance(outcome, Drop):
            ledger.drop(outcome)
            continue
        for change in outcome.changes:
            ledger.change(change)
        yield row, outcome.examples


def _add_entry(ledger: Ledger, entry: Entry) -> None:
    if isinstance(entry, Drop):
        ledger.drop(entry)
    else:
        ledger.change(entry)


def _chunks(rows: Iterator[Conversation | Entry]) -> Iterator[Chunk]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _conversations(chunk: Sequence[Conversation | Entry]) -> list[Conversation]:
    return [row for row in chunk if isinstance(row, Conversation)]


def _in_this_process(chunks: Iterable[Chunk], renderer: Renderer) -> Generator[tuple[Chunk, list[Outcome]]]:
    for chunk in chunks:
        yield chunk, renderer.prove(_conversations(chunk))


def _by_workers(chunks: Iterable[Chunk], renderer: Renderer, workers: int) -> Generator[tuple[Chunk, list[Outcome]]]:
    with _Workers(renderer, workers) as pool:
        under_way: deque[tuple[Chunk, list[Drop | None], Future[list[_PackedOutcome | Drop]]]] = deque()
        for chunk in chunks:
            rows = _conversations(chunk)
            deep = [too_deep(row) for row in rows]  # these do not pass the pipe, and are dropped anyway
            sent_rows = [row for row, drop in zip(rows, deep, strict=True) if drop is None]
            under_way.append((chunk, deep, pool.submit(sent_rows)))
            if len(under_way) > CHUNKS_AHEAD * workers:
                yield _chunk_outcomes(*under_way.popleft())
        while under_way:
            yield _chunk_outcomes(*under_way.popleft())


def _chunk_outcomes(
    chunk: Chunk, deep: Sequence[Drop | None], answer: Future[list[_PackedOutcome | Drop]]
) -> tuple[Chunk, list[Outcome]]:
    outcomes: list[Outcome] = []
    shipped = iter(answer.result())
    for row, drop in zip(_conversations(chunk), deep, strict=True):
        result = drop or next(shipped)
        if isinstance(result, Drop):
            outcomes.append(result)
        else:
            outcomes.append(
                Proven(tuple(example_from_bytes(data, row.address) for data in result.examples), result.changes)
            )
    return chunk, outcomes


def _pack_outcome(outcome: Outcome, vocabulary_size: int) -> _PackedOutcome | Drop:
    if isinstance(outcome, Drop):
        return outcome
    packets = tuple(example_to_bytes(example, vocabulary_size=vocabulary_size) for example in outcome.examples)
    return _PackedOutcome(packets, outcome.changes)


class _Workers:
    """Processes that prove, and a thread for each that waits for it; none is left when the block is left."""

    def __init__(self, renderer: Renderer, count: int) -> None:
        self._renderer = pickle.dumps(replace(renderer))  # a fresh one, without what it has remembered
        self._count = count

    def __enter__(self) -> _Workers:
        self._threads = ThreadPoolExecutor(self._count)
        self._processes = [_start_process() for _ in range(self._count)]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._initialized: set[int] = set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # an idle worker loses nothing, a busy one works for nobody any more
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.communicate()  # closes both pipes and collects the process

    def submit(self, conversations: list[Conversation]) -> Future[list[_PackedOutcome | Drop]]:
        """Have a chunk proven by the next idle worker."""
        return self._threads.submit(self._prove_when_idle, conversations)

    def _prove_when_idle(self, conversations: list[Conversation]) -> list[_PackedOutcome | Drop]:
        process = self._idle.get()
        try:
            answer = _prove_in_process(process, self._startup_message(process), conversations)
        finally:
            self._idle.put(process)
        if isinstance(answer, _Failure):
            answer.error.add_note(f"In a worker process:\n{answer.trace}")
            raise answer.error
        return answer

    def _startup_message(self, process: subprocess.Popen[bytes]) -> bytes:
        if process.pid in self._initialized:
            return b""
        self._initialized.add(process.pid)
        return _with_length(self._renderer)


def _prove_in_process(
    process: subprocess.Popen[bytes], startup_message: bytes, conversations: list[Conversation]
) -> Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    answer: Answer | None = None
    with suppress(BrokenPipeError):
        process.stdin.write(startup_message)
        _send(process.stdin, conversations)
        answer = _receive(process.stdout)
    if answer is not None:
        return answer
    status = process.wait()
    if status == -signal.SIGKILL:
        raise FitError(
            "The system ended a worker process, most likely for want of memory",
            where=f"rows from {conversations[0].address} on",
            fix="use fewer workers: data.workers = 1",
        )
    raise RuntimeError(f"a worker process ended with status {status} at {conversations[0].address}")


def _start_process() -> subprocess.Popen[bytes]:
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}  # one thread each: the workers are the threads
    command = [sys.executable, "-c", _START, json.dumps(sys.path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603 our own code


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def _send(stream: IO[bytes], value: Any) -> None:
    stream.write(_with_length(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next value; None when the other side is gone."""
    head = stream.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    return pickle.loads(data) if len(data) == size else None  # noqa: S301 from a process of ours


def _picklable(error: Exception) -> Exception:
    """The error itself where it survives the journey, else its words."""
    try:
        same = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    assert isinstance(same, Exception)
    return error
