"""Packing by token budget: documents side by side in a row, boundaries kept, positions restarting.

Which examples share a step is the order's business; packing only decides which of them share a micro-batch, so the
loss and its gradient do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.pack.sampler import Sampler
from tutelage.pack.shared_prefix import Stretch, by_content, packed_tokens, shared_with_next, stretches
from tutelage.pack.splitting import halved, rows_within
from tutelage.types import Batch, Example, PackedSequence

Laid = tuple[Sequence[Example], Sequence[Stretch]]
"""The documents of a row and the stretches in which they are laid down."""


def pack_rows(
    examples: Sequence[Example], *, row_tokens: int, share_prefixes: bool = False, documents_isolated: bool = True
) -> tuple[PackedSequence, ...]:
    """Pack examples into rows of at most `row_tokens` tokens.

    Without shared prefixes first fit by decreasing length; with them, the same or rows filled in order of content,
    whichever leaves fewer tokens to compute.
    Source: first-fit decreasing, Johnson 1973; it uses at most 11/9 of the fewest rows possible, plus one.

    Args:
        examples: none longer than `row_tokens`.
        row_tokens: budget of one row (one micro-batch).
        share_prefixes: lay down a beginning that documents of a row have in common once.
        documents_isolated: False gives each example a row of its own, for a model that mixes the tokens of a row.
    """
    for example in examples:
        need = len(example.ids)
        assert need <= row_tokens, f"{example.address}: {need} tokens do not fit a row of {row_tokens}"
        assert example.weights[0] == 0, f"{example.address}: the first token of a document cannot be trained"
    bins = _by_length(examples, row_tokens) if documents_isolated else [[example] for example in examples]
    if share_prefixes and documents_isolated:
        laid = min(
            ([_shared(documents) for documents in bins], _by_content(examples, row_tokens)),
            key=lambda rows: sum(part.end - part.start for _, parts in rows for part in parts),
        )
    else:
        laid = [(documents, stretches(documents, [0] * (len(documents) - 1))) for documents in bins]
    rows = tuple(_row(documents, parts) for documents, parts in laid)
    packed = sum(row.trained_tokens for row in rows)
    assert packed == sum(example.trained_tokens for example in examples), "packing changed the number of trained tokens"
    ends = sum(_trained_ends(row, documents, parts) for row, (documents, parts) in zip(rows, laid, strict=True))
    assert ends == sum(len(example.turns) for example in examples), "packing lost the end of a trained turn"
    return rows


def _by_length(examples: Sequence[Example], row_tokens: int) -> list[list[Example]]:
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: len(example.ids), reverse=True):
        need = len(example.ids)
        for index, free in enumerate(room):
            if need <= free:
                bins[index].append(example)
                room[index] -= need
                break
        else:
            bins.append([example])
            room.append(row_tokens - need)
    return bins


def _shared(documents: Sequence[Example]) -> Laid:
    ordered = [documents[index] for index in by_content(documents)]
    return ordered, stretches(ordered, shared_with_next(ordered))


def _by_content(examples: Sequence[Example], row_tokens: int) -> list[Laid]:
    """Rows filled in order of content, each as far as it goes."""
    ordered = [examples[index] for index in by_content(examples)]
    shared = shared_with_next(ordered)
    rows: list[Laid] = []
    low = 0
    for high in range(1, len(ordered) + 1):
        if high == len(ordered) or packed_tokens(ordered[low : high + 1], shared[low:high]) > row_tokens:
            rows.append((ordered[low:high], stretches(ordered[low:high], shared[low : high - 1])))
            low = high
    return rows


def batches(
    examples: Sequence[Example],
    order: Sampler,
    *,
    row_tokens: int,
    start_step: int = 0,
    share_prefixes: bool = False,
    documents_isolated: bool = True,
    rank: int = 0,
    world_size: int = 1,
    within: int | None = None,
) -> Iterator[Batch]:
    """The batches of a run from `start_step` on, each with the one count its loss is divided by.

    Of several processes each gets its share of a batch's rows, the same number of them; the count is that of all.
    Rows of more than `within` tokens are divided before they are dealt (`rows_within`), so all have as many.
    """
    for step, epoch, chosen in order.indices(start_step):
        rows = pack_rows(
            [examples[index] for index in chosen],
            row_tokens=row_tokens,
            share_prefixes=share_prefixes,
            documents_isolated=documents_isolated,
        )
        rows = rows_within(rows, within)
        yield Batch(
            step=step,
            epoch=epoch,
            rows=rows if world_size == 1 else split_over_ranks(rows, rank=rank, world_size=world_size),
            trained_tokens=sum(row.trained_tokens for row in rows),
            examples=len(chosen),
        )


def split_over_ranks(rows: Sequence[PackedSequence], *, rank: int, world_size: int) -> tuple[PackedSequence, ...]:
    """The rows of one process: every process gets equally many, and those of one place are of like length.

    The longest rows that hold several documents are halved until the rows divide evenly; what is missing then are rows
    in which nothing is trained.

    Args:
        rows: those of all processes.
        rank: which process, from 0.
        world_size: how many processes.
    """
    spread = list(rows)
    while len(spread) % world_size and (several := [row for row in spread if len(row.addresses) > 1]):
        fullest = max(several, key=lambda row: len(row.ids))
        halves = halved(fullest) if fullest.parents else _halves(fullest)
        spread = [row for row in spread if row is not fullest] + list(halves)
    spread.sort(key=lambda row: len(row.ids), reverse=True)
    spread += [_untrained(spread[-1])] * (-len(spread) % world_size)
    return tuple(spread[rank::world_size])


def _halves(row: PackedSequence) -> tuple[PackedSequence, PackedSequence]:
    """The same documents in two rows; the cut is the one between documents that is nearest to the middle."""
    ends = np.cumsum(row.document_tokens)[:-1]
    first = int(np.abs(2 * ends - len(row.ids)).argmin()) + 1
    at = int(ends[first - 1])
    return (
        PackedSequence(
            row.ids[:at], row.weights[:at], row.positions[:at], row.document_tokens[:first], row.addresses[:first]
        ),
        PackedSequence(
            row.ids[at:], row.weights[at:], row.positions[at:], row.document_tokens[first:], row.addresses[first:]
        ),
    )


def _untrained(row: PackedSequence) -> PackedSequence:
    """Two tokens to compute on where there is nothing to learn, so that a process keeps step with the others."""
    return PackedSequence(row.ids[:2], np.zeros_like(row.weights[:2]), row.positions[:2], (len(row.ids[:2]),), ())


def _trained_ends(row: PackedSequence, documents: Sequence[Example], laid: Sequence[Stretch]) -> int:
    """Turns whose last token stands trained at its place in the row, behind the tokens it was proven behind."""
    count, begins = 0, np.cumsum((0, *row.document_tokens))
    before = row.predecessors()
    for part, begin in zip(laid, begins, strict=False):
        if not part.is_document:
            continue
        one = documents[part.example]
        for turn in one.turns:
            at = int(begin) + turn.reply_end - 1 - part.start
            same = row.ids[at] == one.ids[turn.reply_end - 1] and row.positions[at] == turn.reply_end - 1
            behind = before[at] >= 0 and row.ids[before[at]] == one.ids[turn.reply_end - 2]
            count += bool(same and behind and row.weights[at] != 0)
    return count


def _row(documents: Sequence[Example], laid: Sequence[Stretch]) -> PackedSequence:
    shares = any(part.parent >= 0 for part in laid)
    return PackedSequence(
        ids=np.concatenate([documents[part.example].ids[part.start : part.end] for part in laid]),
        weights=np.concatenate([documents[part.example].weights[part.start : part.end] for part in laid]),
        positions=np.concatenate([np.arange(part.start, part.end, dtype=np.int32) for part in laid]),
        document_tokens=tuple(part.end - part.start for part in laid),
        addresses=tuple(documents[part.example].address for part in laid if part.is_document),
        parents=tuple(part.parent for part in laid) if shares else (),
    )
