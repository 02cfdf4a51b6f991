"""A packed row as several smaller ones: the same documents, for a memory that is smaller than was thought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.types import PackedSequence


def rows_within(rows: Sequence[PackedSequence], row_tokens: int | None) -> tuple[PackedSequence, ...]:
    """The same documents in the same order, rows of more than `row_tokens` tokens divided between documents.

    A document that is longer by itself has a row of its own; a beginning that documents share is laid down again in
    each row that needs it. None divides nothing.
    """
    if row_tokens is None:
        return tuple(rows)
    return tuple(
        piece
        for row in rows
        for piece in ((row,) if len(row.ids) <= row_tokens or not row.addresses else _divided(row, row_tokens))
    )


def halved(row: PackedSequence) -> tuple[PackedSequence, PackedSequence]:
    """The documents of a row that shares beginnings in two rows, cut where the longer of the two is shortest.

    Args:
        row: of several documents; a beginning that both halves need is laid down in both.
    """
    continued = set(row.parents)
    documents = [index for index in range(len(row.parents)) if index not in continued]
    chains = [_chain(document, row.parents) for document in documents]

    def needed(first: int, last: int | None) -> list[int]:
        return sorted(set[int]().union(*chains[first:last]))

    def longer(cut: int) -> int:
        halves = needed(0, cut), needed(cut, None)
        return max(sum(row.document_tokens[one] for one in half) for half in halves)

    cut = min(range(1, len(documents)), key=longer)
    return (
        _taken(row, needed(0, cut), row.parents, slice(0, cut)),
        _taken(row, needed(cut, None), row.parents, slice(cut, None)),
    )


def _divided(row: PackedSequence, row_tokens: int) -> Iterator[PackedSequence]:
    parents = row.parents or (-1,) * len(row.document_tokens)
    documents = [index for index in range(len(parents)) if index not in set(parents)]  # what nothing continues
    held: set[int] = set()
    first = 0
    for number, document in enumerate(documents):
        chain = _chain(document, parents)
        if held and sum(row.document_tokens[one] for one in held | chain) > row_tokens:
            yield _taken(row, sorted(held), parents, slice(first, number))
            held, first = set(), number
        held |= chain
    yield _taken(row, sorted(held), parents, slice(first, None))


def _chain(stretch: int, parents: Sequence[int]) -> set[int]:
    """A stretch and all that it continues."""
    chain = set()
    while stretch >= 0:
        chain.add(stretch)
        stretch = parents[stretch]
    return chain


def _taken(row: PackedSequence, stretches: Sequence[int], parents: Sequence[int], documents: slice) -> PackedSequence:
    ends = np.cumsum(row.document_tokens)
    places = np.concatenate(
        [np.arange(ends[stretch] - row.document_tokens[stretch], ends[stretch]) for stretch in stretches]
    )
    order = {-1: -1} | {one: place for place, one in enumerate(stretches)}
    return PackedSequence(
        ids=row.ids[places],
        weights=row.weights[places],
        positions=row.positions[places],
        document_tokens=tuple(row.document_tokens[stretch] for stretch in stretches),
        addresses=row.addresses[documents],
        parents=tuple(order[parents[stretch]] for stretch in stretches) if row.parents else (),
    )
