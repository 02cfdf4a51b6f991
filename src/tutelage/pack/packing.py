"""Packing by token budget: documents side by side in a row, boundaries kept, positions restarting.

Which examples share a step is decided by the sampler; packing only decides which of them share a micro-batch, so the
loss and its gradient do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tutelage.pack.sampler import Sampler
from tutelage.pack.shared_prefix import Segment, common_tokens_with_next, packed_tokens, segments_of, sorted_by_content
from tutelage.pack.splitting import split_rows, split_shared_row
from tutelage.types import Batch, Example, PackedSequence

RowLayout = tuple[Sequence[Example], Sequence[Segment]]
"""The documents of a row and the segments in which they are packed."""


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
        share_prefixes: pack a prefix that documents of a row have in common once.
        documents_isolated: False gives each example a row of its own, for a model that mixes the tokens of a row.
    """
    for example in examples:
        length = len(example.ids)
        assert length <= row_tokens, f"{example.address}: {length} tokens do not fit a row of {row_tokens}"
        assert example.weights[0] == 0, f"{example.address}: the first token of a document cannot be trained"
    bins = _first_fit_decreasing(examples, row_tokens) if documents_isolated else [[example] for example in examples]
    if share_prefixes and documents_isolated:
        layouts = min(
            ([_with_shared_prefixes(documents) for documents in bins], _fill_by_content(examples, row_tokens)),
            key=lambda rows: sum(segment.end - segment.start for _, segments in rows for segment in segments),
        )
    else:
        layouts = [(documents, segments_of(documents, [0] * (len(documents) - 1))) for documents in bins]
    rows = tuple(_packed_sequence(documents, segments) for documents, segments in layouts)
    packed_trained_tokens = sum(row.trained_tokens for row in rows)
    assert packed_trained_tokens == sum(example.trained_tokens for example in examples), (
        "packing changed the number of trained tokens"
    )
    packed_turn_ends = sum(
        _count_trained_turn_ends(row, documents, segments)
        for row, (documents, segments) in zip(rows, layouts, strict=True)
    )
    assert packed_turn_ends == sum(len(example.turns) for example in examples), "packing lost the end of a trained turn"
    return rows


def _first_fit_decreasing(examples: Sequence[Example], row_tokens: int) -> list[list[Example]]:
    bins: list[list[Example]] = []
    free_tokens: list[int] = []
    for example in sorted(examples, key=lambda example: len(example.ids), reverse=True):
        length = len(example.ids)
        for index, free_in_row in enumerate(free_tokens):
            if length <= free_in_row:
                bins[index].append(example)
                free_tokens[index] -= length
                break
        else:
            bins.append([example])
            free_tokens.append(row_tokens - length)
    return bins


def _with_shared_prefixes(documents: Sequence[Example]) -> RowLayout:
    sorted_documents = [documents[index] for index in sorted_by_content(documents)]
    return sorted_documents, segments_of(sorted_documents, common_tokens_with_next(sorted_documents))


def _fill_by_content(examples: Sequence[Example], row_tokens: int) -> list[RowLayout]:
    """Rows filled in order of content, each as far as it goes."""
    sorted_examples = [examples[index] for index in sorted_by_content(examples)]
    shared_tokens = common_tokens_with_next(sorted_examples)
    rows: list[RowLayout] = []
    low = 0
    for high in range(1, len(sorted_examples) + 1):
        if (
            high == len(sorted_examples)
            or packed_tokens(sorted_examples[low : high + 1], shared_tokens[low:high]) > row_tokens
        ):
            rows.append(
                (sorted_examples[low:high], segments_of(sorted_examples[low:high], shared_tokens[low : high - 1]))
            )
            low = high
    return rows


def batches(
    examples: Sequence[Example],
    sampler: Sampler,
    *,
    row_tokens: int,
    start_step: int = 0,
    share_prefixes: bool = False,
    documents_isolated: bool = True,
    rank: int = 0,
    world_size: int = 1,
    max_row_tokens: int | None = None,
    replayed_from: int | None = None,
) -> Iterator[Batch]:
    """The batches of a run from `start_step` on, each with the one count its loss is divided by.

    Of several processes each gets its share of a batch's rows, the same number of them; the count is that of all.
    Rows of more than `max_row_tokens` tokens are split first (`split_rows`), by all processes alike. Examples from the
    index `replayed_from` on have rows of their own, marked as such, in which none shares a beginning.
    """
    for step, epoch, indices in sampler.indices(start_step):
        groups = [indices]
        if replayed_from is not None:
            groups = [
                [index for index in indices if (index >= replayed_from) == replayed] for replayed in (False, True)
            ]
        packed = [
            pack_rows(
                [examples[index] for index in group],
                row_tokens=row_tokens,
                share_prefixes=share_prefixes and not apart,
                documents_isolated=documents_isolated,
            )
            for apart, group in enumerate(groups)
        ]
        rows = packed[0] + tuple(replace(row, replayed=True) for group_rows in packed[1:] for row in group_rows)
        if max_row_tokens is not None:
            rows = split_rows(rows, max_row_tokens)
        yield Batch(
            step=step,
            epoch=epoch,
            rows=rows if world_size == 1 else split_over_ranks(rows, rank=rank, world_size=world_size),
            trained_tokens=sum(row.trained_tokens for row in rows),
            examples=len(indices),
        )


def split_over_ranks(rows: Sequence[PackedSequence], *, rank: int, world_size: int) -> tuple[PackedSequence, ...]:
    """The rows of one process: every process gets equally many, and those computed at the same time are of like length.

    The longest rows that hold several documents are halved until the rows divide evenly; what is missing then are rows
    in which nothing is trained.

    Args:
        rows: those of all processes.
        rank: which process, from 0.
        world_size: how many processes.
    """
    assigned = list(rows)
    while len(assigned) % world_size and (divisible := [row for row in assigned if len(row.addresses) > 1]):
        fullest = max(divisible, key=lambda row: len(row.ids))
        halves = split_shared_row(fullest) if fullest.parents else _split_between_documents(fullest)
        assigned = [row for row in assigned if row is not fullest] + list(halves)
    assigned.sort(key=lambda row: len(row.ids), reverse=True)
    assigned += [_dummy_row(assigned[-1])] * (-len(assigned) % world_size)
    return tuple(assigned[rank::world_size])


def _split_between_documents(row: PackedSequence) -> tuple[PackedSequence, PackedSequence]:
    """The same documents in two rows; the cut is the one between documents that is nearest to the middle."""
    ends = np.cumsum(row.document_tokens)[:-1]
    document_count = int(np.abs(2 * ends - len(row.ids)).argmin()) + 1
    cut_token = int(ends[document_count - 1])
    return (
        PackedSequence(
            row.ids[:cut_token],
            row.weights[:cut_token],
            row.positions[:cut_token],
            row.document_tokens[:document_count],
            row.addresses[:document_count],
            replayed=row.replayed,
        ),
        PackedSequence(
            row.ids[cut_token:],
            row.weights[cut_token:],
            row.positions[cut_token:],
            row.document_tokens[document_count:],
            row.addresses[document_count:],
            replayed=row.replayed,
        ),
    )


def _dummy_row(row: PackedSequence) -> PackedSequence:
    """A dummy row of two tokens with zero loss weight, so that a process computes as many rows as the others."""
    return PackedSequence(row.ids[:2], np.zeros_like(row.weights[:2]), row.positions[:2], (len(row.ids[:2]),), ())


def _count_trained_turn_ends(row: PackedSequence, documents: Sequence[Example], segments: Sequence[Segment]) -> int:
    """Turns whose last token is trained at its position in the row, after the token that it was proven after."""
    count, segment_starts = 0, np.cumsum((0, *row.document_tokens))
    predecessors = row.predecessors()
    for segment, segment_start in zip(segments, segment_starts, strict=False):
        if not segment.is_document:
            continue
        example = documents[segment.example]
        for turn in example.turns:
            position = int(segment_start) + turn.reply_end - 1 - segment.start
            is_unchanged = (
                row.ids[position] == example.ids[turn.reply_end - 1] and row.positions[position] == turn.reply_end - 1
            )
            follows_context = (
                predecessors[position] >= 0 and row.ids[predecessors[position]] == example.ids[turn.reply_end - 2]
            )
            count += bool(is_unchanged and follows_context and row.weights[position] != 0)
    return count


def _packed_sequence(documents: Sequence[Example], segments: Sequence[Segment]) -> PackedSequence:
    has_shared_prefix = any(segment.parent >= 0 for segment in segments)
    return PackedSequence(
        ids=np.concatenate([documents[segment.example].ids[segment.start : segment.end] for segment in segments]),
        weights=np.concatenate(
            [documents[segment.example].weights[segment.start : segment.end] for segment in segments]
        ),
        positions=np.concatenate([np.arange(segment.start, segment.end, dtype=np.int32) for segment in segments]),
        document_tokens=tuple(segment.end - segment.start for segment in segments),
        addresses=tuple(documents[segment.example].address for segment in segments if segment.is_document),
        parents=tuple(segment.parent for segment in segments) if has_shared_prefix else (),
    )
