"""Conversations -> proven Examples in several processes, in the order of the rows.

Conversations go out to `system.workers` a chunk at a time, and the chunk's Examples come back as columns
(`example_codec`), its ledger entries as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

from tutelage.ledger import Ledger
from tutelage.render.example_codec import ExampleColumns, columns_of
from tutelage.render.renderer import Renderer
from tutelage.render.row_size import too_deep
from tutelage.system.workers import Workers, default_workers, serve
from tutelage.types import Address, Change, Conversation, Drop, Example, Proven

CHUNK_ROWS = 256
"""Rows proven together: enough to keep a tokenizer's threads busy, few enough to stream."""
ROWS_WORTH_WORKERS = 4000
"""Fewer rows are proven sooner than workers start (about 0.3 s)."""
CHUNKS_AHEAD = 3
"""Chunks under way for each worker, so that none waits for another's slow row."""

Entry = Drop | Change
Outcome = Proven | Drop
Chunk = list[Conversation | Entry]
ProvenRow = tuple[Conversation, tuple[Example, ...]]


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


def serve_worker() -> None:
    """The worker's side: it starts with a renderer."""

    def prepare(renderer: Renderer) -> Any:
        return lambda rows: _prove_chunk(renderer, rows)

    serve(prepare)


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
    fresh = replace(renderer)  # without what it has remembered
    with Workers(__name__, fresh, workers, where=_where, fix="use fewer workers: data.workers = 1") as pool:
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


def _where(rows: Sequence[Conversation]) -> str:
    return f"rows from {rows[0].address} on"
