"""Length policy: what becomes of a row with a sequence of more tokens than the limit. No other module cuts anything.

A conversation is only ever cut after a complete trained turn: what stays begins with the very ids that were proven, and
every reply in it is trained to its stop. Only a plain document, which is no reply, is divided between its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tutelage.render.example_codec import columns_of
from tutelage.render.workers import ChunkRow, ProvenChunk
from tutelage.types import Change, Conversation, Drop, Example, Turn

TooLong = Literal["drop", "cut", "split"]


def within_limit(
    proven: Iterable[ProvenChunk], *, max_seq_length: int, vocabulary_size: int, too_long: TooLong = "drop"
) -> Iterator[ProvenChunk]:
    """Chunks whose every sequence has at most `max_seq_length` tokens; most pass as they are.

    Args:
        proven: rows with their Examples; what is dropped, cut or divided here is added to the entries of its row.
        max_seq_length: the limit; at least 2.
        vocabulary_size: as for `columns_of`.
        too_long: "drop" lets a row go whole; "cut" keeps the trained turns that end within the limit; "split" does so
            too, and divides a plain document into sequences of the limit, each token trained as often as before.
    """
    for chunk in proven:
        if not np.any(chunk.columns.tokens > max_seq_length):
            yield chunk
            continue
        rows: list[ChunkRow] = []
        kept_examples: list[Example] = []
        for row, examples in chunk.decoded():
            fitting_row, fitting_examples = row, examples
            if row.conversation is not None and any(len(example.ids) > max_seq_length for example in examples):
                fitting_examples, entry = _shorten(row.conversation, examples, max_seq_length, too_long)
                conversation = row.conversation if fitting_examples else None
                fitting_row = ChunkRow(conversation, (*row.entries, entry), len(fitting_examples))
            rows.append(fitting_row)
            kept_examples += fitting_examples
        yield ProvenChunk(rows, columns_of(kept_examples, vocabulary_size=vocabulary_size))


def _shorten(
    conversation: Conversation, examples: Sequence[Example], max_seq_length: int, too_long: TooLong
) -> tuple[tuple[Example, ...], Drop | Change]:
    address = conversation.address
    limit = f"the limit pack.max_seq_length is {max_seq_length}"
    longest = max(len(example.ids) for example in examples)
    if too_long == "drop":
        return (), Drop(address, "too_long", f"{longest} tokens; {limit}")
    if conversation.is_text:
        if too_long == "cut":
            return (), Drop(address, "too_long", f"a document of {longest} tokens has no turn to cut at; {limit}")
        pieces = tuple(_split_document(examples[0], max_seq_length))
        detail = f"a document of {longest} tokens became {len(pieces)} sequences; {limit}"
        return pieces, Change(address, "document_split", detail)
    truncated = [
        example if len(example.ids) <= max_seq_length else _truncate(example, max_seq_length) for example in examples
    ]
    kept_examples = tuple(
        replace(example, part=index)
        for index, example in enumerate(example for example in truncated if example is not None)
    )
    if not kept_examples:
        first_turn_end = min(turn.reply_end for example in examples for turn in example.turns)
        return (), Drop(address, "too_long", f"the first trained turn ends after {first_turn_end} tokens; {limit}")
    turns, turns_kept = (sum(len(sequence.turns) for sequence in sequences) for sequences in (examples, kept_examples))
    return kept_examples, Change(
        address, "turns_cut", f"{turns_kept} of {turns} trained turns stay, the others end later; {limit}"
    )


def _truncate(example: Example, max_seq_length: int) -> Example | None:
    """The Example up to the end of its last turn within the limit; None where no turn ends there."""
    turns = tuple(turn for turn in example.turns if turn.reply_end <= max_seq_length)
    if not turns:
        return None
    end = turns[-1].reply_end
    return replace(example, ids=example.ids[:end], weights=example.weights[:end], turns=turns)


def _split_document(document: Example, max_seq_length: int) -> Iterator[Example]:
    """Consecutive pieces; each begins with the last token of the one before, untrained: its first needs a context."""
    (turn,) = document.turns
    for index, start in enumerate(range(0, len(document.ids) - 1, max_seq_length - 1)):
        end = min(start + max_seq_length, len(document.ids))
        weights = document.weights[start:end].copy()
        weights[0] = 0.0
        is_last = end == len(document.ids)
        piece = Turn(turn.message, 1, end - start, ends_with_stop=is_last and turn.ends_with_stop)
        yield Example(document.address, index, document.ids[start:end], weights, (piece,))
