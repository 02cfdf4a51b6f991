"""A packed row as several smaller ones: the same documents, for less memory than was planned with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.types import PackedSequence


def split_rows(rows: Sequence[PackedSequence], row_tokens: int | None) -> tuple[PackedSequence, ...]:
    """The same documents in the same order, rows of more than `row_tokens` tokens split between documents.

    A document that is longer by itself has a row of its own; a shared prefix is packed again in each row that
    needs it. None splits nothing.
    """
    if row_tokens is None:
        return tuple(rows)
    return tuple(
        piece
        for row in rows
        for piece in ((row,) if len(row.ids) <= row_tokens or not row.addresses else _split_row(row, row_tokens))
    )


def split_shared_row(row: PackedSequence) -> tuple[PackedSequence, PackedSequence]:
    """The documents of a row with shared prefixes in two rows, cut where the longer of the two is shortest.

    Args:
        row: of several documents; a prefix that both halves need is packed in both.
    """
    continued = set(row.parents)
    documents = [index for index in range(len(row.parents)) if index not in continued]
    chains = [_segment_ancestry(document, row.parents) for document in documents]

    def needed_segments(first: int, last: int | None) -> list[int]:
        return sorted(set[int]().union(*chains[first:last]))

    def longer_half_tokens(cut: int) -> int:
        halves = needed_segments(0, cut), needed_segments(cut, None)
        return max(sum(row.document_tokens[segment] for segment in half) for half in halves)

    cut = min(range(1, len(documents)), key=longer_half_tokens)
    return (
        _select_segments(row, needed_segments(0, cut), row.parents, slice(0, cut)),
        _select_segments(row, needed_segments(cut, None), row.parents, slice(cut, None)),
    )


def _split_row(row: PackedSequence, row_tokens: int) -> Iterator[PackedSequence]:
    parents = row.parents or (-1,) * len(row.document_tokens)
    documents = [index for index in range(len(parents)) if index not in set(parents)]  # what nothing continues
    row_segments: set[int] = set()
    first_document = 0
    for document_number, document in enumerate(documents):
        ancestry = _segment_ancestry(document, parents)
        if row_segments and sum(row.document_tokens[segment] for segment in row_segments | ancestry) > row_tokens:
            yield _select_segments(row, sorted(row_segments), parents, slice(first_document, document_number))
            row_segments, first_document = set(), document_number
        row_segments |= ancestry
    yield _select_segments(row, sorted(row_segments), parents, slice(first_document, None))


def _segment_ancestry(segment: int, parents: Sequence[int]) -> set[int]:
    """A segment and all that it continues."""
    ancestry = set()
    while segment >= 0:
        ancestry.add(segment)
        segment = parents[segment]
    return ancestry


def _select_segments(
    row: PackedSequence, segments: Sequence[int], parents: Sequence[int], documents: slice
) -> PackedSequence:
    ends = np.cumsum(row.document_tokens)
    token_indices = np.concatenate(
        [np.arange(ends[segment] - row.document_tokens[segment], ends[segment]) for segment in segments]
    )
    new_numbers = {-1: -1} | {segment: number for number, segment in enumerate(segments)}
    return PackedSequence(
        ids=row.ids[token_indices],
        weights=row.weights[token_indices],
        positions=row.positions[token_indices],
        document_tokens=tuple(row.document_tokens[segment] for segment in segments),
        addresses=row.addresses[documents],
        parents=tuple(new_numbers[parents[segment]] for segment in segments) if row.parents else (),
        replayed=row.replayed,
    )
