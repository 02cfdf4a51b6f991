"""The way of rows into a store, or to whoever wants them one by one: read -> prove -> fit -> store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from tutelage.ledger import Ledger
from tutelage.pack.length import TooLong, within_limit
from tutelage.render import Renderer
from tutelage.render.workers import ChunkRow, ProvenChunk, proven_chunks
from tutelage.types import Change, Conversation, Drop, Example

Read = Callable[[Ledger], Iterable[Conversation]]


def store_rows(
    read: Read,
    renderer: Renderer,
    ledger: Ledger,
    store: Callable[[ProvenChunk], None],
    *,
    max_seq_length: int,
    too_long: TooLong = "drop",
    workers: int | None = None,
) -> None:
    """Hand every chunk of proven rows to a store, as the worker that proved them made it.

    Args:
        read: gives the conversations, and enters drops and changes in the ledger that it gets.
        renderer: proves them.
        ledger: takes every row, drop, change and note; each entry is made when its row's turn comes.
        store: appends a chunk.
        max_seq_length: the longest sequence.
        too_long: what becomes of a row with a longer one; see `tutelage.pack.length`.
        workers: processes that prove; see `tutelage.render.examples`.
    """
    chain = _chunks(read, renderer, ledger, max_seq_length=max_seq_length, too_long=too_long, workers=workers)
    with closing(chain) as chunks:
        for chunk in chunks:
            for row in chunk.rows:
                _enter(row, ledger)
            store(chunk)


def proven_rows(
    read: Read,
    renderer: Renderer,
    ledger: Ledger,
    *,
    max_seq_length: int,
    too_long: TooLong = "drop",
    workers: int | None = None,
) -> Generator[tuple[Conversation, tuple[Example, ...]]]:
    """Conversations with their Examples, one by one; the arguments are those of `store_rows`."""
    chain = _chunks(read, renderer, ledger, max_seq_length=max_seq_length, too_long=too_long, workers=workers)
    with closing(chain) as chunks:
        for chunk in chunks:
            for row, examples in chunk.decoded():
                _enter(row, ledger)
                if row.conversation is not None and examples:
                    yield row.conversation, examples


def _chunks(
    read: Read,
    renderer: Renderer,
    ledger: Ledger,
    *,
    max_seq_length: int,
    too_long: TooLong,
    workers: int | None,
) -> Generator[ProvenChunk]:
    """Chunks of rows that are read, proven and fit.

    Rows are read ahead of the proof. So the reader has a ledger of its own, and its entries travel between the
    conversations to where they belong: the first drop, which strict mode stops at, is the first in the file.
    """
    reader_ledger = Ledger()
    bounded_renderer = replace(renderer, most_tokens=max_seq_length, too_long=too_long)
    rows = _rows_and_entries(read, reader_ledger)
    with closing(proven_chunks(rows, bounded_renderer, workers=workers)) as proven:
        yield from within_limit(
            proven,
            max_seq_length=max_seq_length,
            too_long=too_long,
            vocabulary_size=renderer.tokenizer.vocabulary_size,
        )
    ledger.enter(reader_ledger.rows_in)
    for note in reader_ledger.notes:
        ledger.note(note)


def _rows_and_entries(read: Read, reader_ledger: Ledger) -> Iterator[Conversation | Drop | Change]:
    pending_entries: list[Drop | Change] = []
    reader_ledger.listener = pending_entries.append
    for conversation in read(reader_ledger):
        yield from pending_entries
        pending_entries.clear()
        yield conversation
    yield from pending_entries


def _enter(row: ChunkRow, ledger: Ledger) -> None:
    for entry in row.entries:
        ledger.add(entry)
    if row.examples:
        ledger.keep()
