"""Packing by token budget: documents side by side in a row, boundaries kept, positions restarting.

Which examples share a step is the order's business; packing only decides which of them share a micro-batch, so the
loss and its gradient do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.pack.order import Order
from tutelage.types import Batch, Example, Row


def pack_rows(examples: Sequence[Example], *, row_tokens: int) -> tuple[Row, ...]:
    """Pack examples into rows of at most `row_tokens` tokens, first fit by decreasing length.

    Source: first-fit decreasing, Johnson 1973; it uses at most 11/9 of the fewest rows possible, plus one.

    Args:
        examples: none longer than `row_tokens`.
        row_tokens: budget of one row (one micro-batch).
    """
    longest_first = sorted(examples, key=lambda one: len(one.ids), reverse=True)
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in longest_first:
        need = len(example.ids)
        assert need <= row_tokens, f"{example.address}: {need} tokens do not fit a row of {row_tokens}"
        for index, free in enumerate(room):
            if need <= free:
                bins[index].append(example)
                room[index] -= need
                break
        else:
            bins.append([example])
            room.append(row_tokens - need)
    rows = tuple(_row(documents) for documents in bins)
    packed = sum(row.trained_tokens for row in rows)
    assert packed == sum(one.trained_tokens for one in examples), "packing changed the number of trained tokens"
    ends = sum(_trained_ends(row, documents) for row, documents in zip(rows, bins, strict=True))
    assert ends == sum(len(one.turns) for one in examples), "packing lost the end of a trained turn"
    return rows


def batches(examples: Sequence[Example], order: Order, *, row_tokens: int, start_step: int = 0) -> Iterator[Batch]:
    """The batches of a run from `start_step` on, each with the one count its loss is divided by."""
    for step, epoch, chosen in order.indices(start_step):
        rows = pack_rows([examples[index] for index in chosen], row_tokens=row_tokens)
        yield Batch(
            step=step,
            epoch=epoch,
            rows=rows,
            trained_tokens=sum(row.trained_tokens for row in rows),
            examples=len(chosen),
        )


def rows_within(rows: Sequence[Row], row_tokens: int | None) -> tuple[Row, ...]:
    """The same documents in the same order, rows of more than `row_tokens` tokens divided between documents.

    A document that is longer by itself has a row of its own. None divides nothing.
    """
    if row_tokens is None:
        return tuple(rows)
    return tuple(piece for row in rows for piece in _divided(row, row_tokens))


def _divided(row: Row, row_tokens: int) -> Iterator[Row]:
    first = start = end = 0
    for number, tokens in enumerate(row.document_tokens):
        if end > start and end + tokens - start > row_tokens:
            yield _documents(row, slice(first, number), slice(start, end))
            first, start = number, end
        end += tokens
    yield _documents(row, slice(first, None), slice(start, end))


def _documents(row: Row, documents: slice, tokens: slice) -> Row:
    return Row(
        row.ids[tokens],
        row.weights[tokens],
        row.positions[tokens],
        row.document_tokens[documents],
        row.addresses[documents],
    )


def _trained_ends(row: Row, documents: Sequence[Example]) -> int:
    """Turns whose last token stands trained at its place in the row, with its predecessor in the same document."""
    count, start = 0, 0
    for one, tokens in zip(documents, row.document_tokens, strict=True):
        for turn in one.turns:
            at = start + turn.reply_end - 1
            same = row.ids[at] == one.ids[turn.reply_end - 1] and row.positions[at] == turn.reply_end - 1
            count += bool(same and row.weights[at] != 0)
        start += tokens
    return count


def _row(documents: Sequence[Example]) -> Row:
    for one in documents:
        assert one.weights[0] == 0, f"{one.address}: the first token of a document cannot be trained"
    return Row(
        ids=np.concatenate([one.ids for one in documents]),
        weights=np.concatenate([one.weights for one in documents]),
        positions=np.concatenate([np.arange(len(one.ids), dtype=np.int32) for one in documents]),
        document_tokens=tuple(len(one.ids) for one in documents),
        addresses=tuple(one.address for one in documents),
    )
