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


def batches(
    examples: Sequence[Example], order: Order, *, row_tokens: int, start_step: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[Batch]:
    """The batches of a run from `start_step` on, each with the one count its loss is divided by.

    Of several processes each gets its share of a batch's rows, the same number of them; the count is that of all.
    """
    for step, epoch, chosen in order.indices(start_step):
        rows = pack_rows([examples[index] for index in chosen], row_tokens=row_tokens)
        yield Batch(
            step=step,
            epoch=epoch,
            rows=rows if ranks == 1 else dealt(rows, rank=rank, ranks=ranks),
            trained_tokens=sum(row.trained_tokens for row in rows),
            examples=len(chosen),
        )


def dealt(rows: Sequence[Row], *, rank: int, ranks: int) -> tuple[Row, ...]:
    """The rows of one process: every process gets equally many, and those of one place are of like length.

    The longest rows that hold several documents are halved until the rows divide evenly; what is missing then are rows
    in which nothing is trained.

    Args:
        rows: those of all processes.
        rank: which process, from 0.
        ranks: how many processes.
    """
    spread = list(rows)
    while len(spread) % ranks and (several := [row for row in spread if len(row.document_tokens) > 1]):
        fullest = max(several, key=lambda row: len(row.ids))
        spread = [row for row in spread if row is not fullest] + list(_halves(fullest))
    spread.sort(key=lambda row: len(row.ids), reverse=True)
    spread += [_untrained(spread[-1])] * (-len(spread) % ranks)
    return tuple(spread[rank::ranks])


def _halves(row: Row) -> tuple[Row, Row]:
    """The same documents in two rows; the cut is the one between documents that is nearest to the middle."""
    ends = np.cumsum(row.document_tokens)[:-1]
    first = int(np.abs(2 * ends - len(row.ids)).argmin()) + 1
    at = int(ends[first - 1])
    return (
        Row(row.ids[:at], row.weights[:at], row.positions[:at], row.document_tokens[:first], row.addresses[:first]),
        Row(row.ids[at:], row.weights[at:], row.positions[at:], row.document_tokens[first:], row.addresses[first:]),
    )


def _untrained(row: Row) -> Row:
    """Two tokens to compute on where there is nothing to learn, so that a process keeps step with the others."""
    return Row(row.ids[:2], np.zeros_like(row.weights[:2]), row.positions[:2], (len(row.ids[:2]),), ())


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
