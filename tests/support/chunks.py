"""Examples made by hand -> the chunks in which proven rows travel."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.ledger import Ledger
from tutelage.render.example_codec import columns_of
from tutelage.render.workers import ChunkRow, ProvenChunk
from tutelage.types import Conversation, Example, Message


def row_of(examples: Sequence[Example], system: str | None = None) -> tuple[Conversation, tuple[Example, ...]]:
    """A conversation that could have become these Examples."""
    opening = () if system is None else (Message("system", system),)
    messages = (*opening, Message("user", "a"), Message("assistant", "b"))
    return Conversation(messages, examples[0].address), tuple(examples)


def chunk_of(rows: Sequence[tuple[Conversation, Sequence[Example]]], *, vocabulary_size: int = 1000) -> ProvenChunk:
    """One chunk of proven rows."""
    every_example = [example for _, examples in rows for example in examples]
    return ProvenChunk(
        [ChunkRow(conversation, (), len(examples)) for conversation, examples in rows],
        columns_of(every_example, vocabulary_size=vocabulary_size),
    )


def entered(chunks: Sequence[ProvenChunk], ledger: Ledger) -> list[tuple[Conversation, tuple[Example, ...]]]:
    """The rows that are left, once the ledger has every entry."""
    kept = []
    for chunk in chunks:
        for row, examples in chunk.decoded():
            for entry in row.entries:
                ledger.add(entry)
            if row.conversation is not None and examples:
                ledger.keep()
                kept.append((row.conversation, examples))
    return kept
