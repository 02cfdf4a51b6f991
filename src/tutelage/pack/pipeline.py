"""Rows that are read -> rows that are proven and fit, with the ledger's entries in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from tutelage.ledger import Ledger
from tutelage.pack.length import TooLong, within_limit
from tutelage.render import Renderer, examples
from tutelage.types import Change, Conversation, Drop, Example


def proven_rows(
    read: Callable[[Ledger], Iterable[Conversation]],
    renderer: Renderer,
    ledger: Ledger,
    *,
    max_seq_length: int,
    too_long: TooLong = "drop",
    workers: int | None = None,
) -> Generator[tuple[Conversation, tuple[Example, ...]]]:
    """Conversations with their Examples; each entry of the ledger is made when its row's turn comes.

    Rows are read ahead of the proof. So the reader has a ledger of its own, and its entries travel between the
    conversations to where they belong: the first drop, which strict mode stops at, is the first in the file.

    Args:
        read: gives the conversations, and enters drops and changes in the ledger that it gets.
        renderer: proves them.
        ledger: takes every row, drop, change and note.
        max_seq_length: the longest sequence.
        too_long: what becomes of a row with a longer one; see `tutelage.pack.length`.
        workers: processes that prove; see `tutelage.render.examples`.
    """
    pending_entries: list[Drop | Change] = []
    reader_ledger = Ledger(listener=pending_entries.append)

    def stream() -> Iterator[Conversation | Drop | Change]:
        for conversation in read(reader_ledger):
            yield from pending_entries
            pending_entries.clear()
            yield conversation
        yield from pending_entries

    bounded_renderer = replace(renderer, most_tokens=max_seq_length, too_long=too_long)
    with closing(examples(stream(), bounded_renderer, ledger, workers=workers)) as proven:
        yield from within_limit(proven, max_seq_length=max_seq_length, too_long=too_long, ledger=ledger)
    ledger.enter(reader_ledger.rows_in)
    for note in reader_ledger.notes:
        ledger.note(note)
