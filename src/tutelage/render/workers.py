"""Conversations -> proven Examples in several processes, in the order of the rows.

Workers are fresh interpreters behind a pipe: no fork of a parent with threads, no need for a `__main__` guard in the
caller's script, and none outlives its parent, whose end closes the pipe. Conversations go out a chunk at a time, as
plain tuples, and the chunk's Examples come back as columns (`example_codec`), its ledger entries as they are.
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
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from operator import attrgetter
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, NamedTuple

from tutelage.errors import FitError
from tutelage.ledger import Ledger
from tutelage.render.example_codec import ExampleColumns, columns_of
from tutelage.render.renderer import Renderer
from tutelage.render.row_size import too_deep
from tutelage.types import Address, Change, Conversation, Drop, Example, Message, Proven

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


_CONVERSATION_FIELDS, _MESSAGE_FIELDS, _ADDRESS_FIELDS = (
    attrgetter(*(member.name for member in fields(kind))) for kind in (Conversation, Message, Address)
)
"""Every field in the order of the constructor, so that none stays behind when one is added."""


class ChunkRow(NamedTuple):
    """A row of a chunk: what the ledger gets of it, and how many of the chunk's Examples are its own.

    `conversation` is None for a row of which entries alone are left; a row that was dropped has no Examples.
    """

    conversation: Conversation | None
    entries: tuple[Entry, ...]
    examples: int


@dataclass(frozen=True, slots=True)
class ProvenChunk:
    """Rows in their order, and the Examples of them all."""

    rows: Sequence[ChunkRow]
    columns: ExampleColumns

    def decoded(self) -> Iterator[tuple[ChunkRow, tuple[Example, ...]]]:
        """Each row with its Examples."""
        first = 0
        for row in self.rows:
            indices = range(first, first + row.examples)
            first += row.examples
            yield row, tuple(self.columns.example(index, _address_of(row)) for index in indices)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the rows of a chunk became, in order: a Drop, or the number of Examples and the changes."""

    outcomes: list[Drop | tuple[int, tuple[Change, ...]]]
    columns: ExampleColumns


@dataclass(frozen=True, slots=True)
class _Failure:
    """An exception on its way from a worker to the parent, with where it came from."""

    error: Exception
    trace: str


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
    with closing(proven_chunks(rows, renderer, workers=workers)) as chunks:
        for chunk in chunks:
            for row, row_examples in chunk.decoded():
                for entry in row.entries:
                    ledger.add(entry)
                if row.conversation is not None and row_examples:
                    yield row.conversation, row_examples


def proven_chunks(
    rows: Iterable[Conversation | Entry], renderer: Renderer, *, workers: int | None = None
) -> Generator[ProvenChunk]:
    """Prove conversations as they come, a chunk at a time; nothing is entered in a ledger yet.

    Args:
        rows: as for `examples`.
        renderer: as for `examples`.
        workers: as for `examples`.

    Raises:
        FitError, RuntimeError: as `examples`.
    """
    source = iter(rows)
    first = list(islice(source, ROWS_WORTH_WORKERS))
    enough = len(first) == ROWS_WORTH_WORKERS
    chunks = _chunks(chain(first, source))
    del first, source  # or the first rows would stay in memory to the end
    process_count = default_workers() if workers is None else workers
    proven = (
        _by_workers(chunks, renderer, process_count)
        if enough and process_count > 1
        else _in_this_process(chunks, renderer)
    )
    with closing(proven):  # a traceback that someone keeps would keep the processes as well
        yield from proven


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
            _send(outward, _answer_or_failure(renderer, [_from_tuple(row) for row in conversations]))
    os._exit(0)  # nothing to tidy; an ordinary exit would try once more to write to a parent that is gone


def _answer_or_failure(renderer: Renderer, conversations: list[Conversation]) -> _Answer | _Failure:
    try:
        return _prove_chunk(renderer, conversations)
    except Exception as error:  # noqa: BLE001 it is raised again where the rows came from
        return _Failure(_picklable(error), traceback.format_exc())


def _prove_chunk(renderer: Renderer, conversations: list[Conversation]) -> _Answer:
    proven = renderer.prove(conversations)
    made = [example for outcome in proven if isinstance(outcome, Proven) for example in outcome.examples]
    outcomes = [
        outcome if isinstance(outcome, Drop) else (len(outcome.examples), outcome.changes) for outcome in proven
    ]
    return _Answer(outcomes, columns_of(made, vocabulary_size=renderer.tokenizer.vocabulary_size))


def _address_of(row: ChunkRow) -> Address:
    return row.entries[0].address if row.conversation is None else row.conversation.address


def _chunks(rows: Iterator[Conversation | Entry]) -> Iterator[Chunk]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _conversations(chunk: Sequence[Conversation | Entry]) -> list[Conversation]:
    return [row for row in chunk if isinstance(row, Conversation)]


def _in_this_process(chunks: Iterable[Chunk], renderer: Renderer) -> Generator[ProvenChunk]:
    for chunk in chunks:
        conversations = _conversations(chunk)
        yield _merged(chunk, [None] * len(conversations), _prove_chunk(renderer, conversations))


def _by_workers(chunks: Iterable[Chunk], renderer: Renderer, workers: int) -> Generator[ProvenChunk]:
    with _Workers(renderer, workers) as pool:
        under_way: deque[tuple[Chunk, list[Drop | None], Future[_Answer]]] = deque()
        for chunk in chunks:
            rows = _conversations(chunk)
            deep = [too_deep(row) for row in rows]  # these do not pass the pipe, and are dropped anyway
            sent_rows = [row for row, drop in zip(rows, deep, strict=True) if drop is None]
            under_way.append((chunk, deep, pool.submit(sent_rows)))
            if len(under_way) > CHUNKS_AHEAD * workers:
                yield _proven_chunk(*under_way.popleft())
        while under_way:
            yield _proven_chunk(*under_way.popleft())


def _proven_chunk(chunk: Chunk, deep: Sequence[Drop | None], answer: Future[_Answer]) -> ProvenChunk:
    return _merged(chunk, deep, answer.result())


def _merged(chunk: Chunk, deep: Sequence[Drop | None], answer: _Answer) -> ProvenChunk:
    """A chunk's rows with what became of each: `deep` for those that were not sent, the answer for the others."""
    rows: list[ChunkRow] = []
    drops, outcomes = iter(deep), iter(answer.outcomes)
    for row in chunk:
        if not isinstance(row, Conversation):
            rows.append(ChunkRow(None, (row,), 0))
            continue
        outcome = next(drops) or next(outcomes)
        if isinstance(outcome, Drop):
            rows.append(ChunkRow(None, (outcome,), 0))
        else:
            rows.append(ChunkRow(row, outcome[1], outcome[0]))
    return ProvenChunk(rows, answer.columns)


def _to_tuple(row: Conversation) -> tuple[Any, ...]:
    """A conversation as a plain tuple: pickling frozen dataclasses runs Python code for each of them."""
    messages, address, *others = _CONVERSATION_FIELDS(row)
    return [_MESSAGE_FIELDS(message) for message in messages], _ADDRESS_FIELDS(address), *others


def _from_tuple(row: tuple[Any, ...]) -> Conversation:
    messages, address, *others = row
    return Conversation(tuple([Message(*message) for message in messages]), Address(*address), *others)


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

    def submit(self, conversations: list[Conversation]) -> Future[_Answer]:
        """Have a chunk proven by the next idle worker."""
        return self._threads.submit(self._prove_when_idle, conversations)

    def _prove_when_idle(self, conversations: list[Conversation]) -> _Answer:
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
) -> _Answer | _Failure:
    assert process.stdin is not None
    assert process.stdout is not None
    answer: _Answer | _Failure | None = None
    with suppress(BrokenPipeError):
        process.stdin.write(startup_message)
        _send(process.stdin, [_to_tuple(row) for row in conversations])
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
