"""Rows dealt out to processes: equally many to each, every document once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from tutelage.pack import Sampler, batches, pack_rows, split_over_ranks
from tutelage.types import Address, Example, PackedSequence


def examples(*lengths: int) -> list[Example]:
    made = []
    for number, length in enumerate(lengths):
        weights = np.ones(length, dtype=np.float32)
        weights[0] = 0
        made.append(Example(Address("made", number), 0, np.full(length, number, dtype=np.int32), weights, ()))
    return made


def documents(rows: Iterable[PackedSequence]) -> Counter[tuple[Address, int]]:
    learned = [row for row in rows if row.addresses]
    return Counter(pair for row in learned for pair in zip(row.addresses, row.document_tokens, strict=True))


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
@pytest.mark.parametrize("lengths", [(5,), (9, 9, 9), (3, 4, 5, 6, 7, 8), (10, 1, 1, 1, 1), (2,) * 17])
def test_each_process_gets_equally_many_rows_and_each_document_is_somewhere_once(
    lengths: tuple[int, ...], world_size: int
) -> None:
    whole = pack_rows(examples(*lengths), row_tokens=10)

    shares = [split_over_ranks(whole, rank=rank, world_size=world_size) for rank in range(world_size)]

    assert len({len(share) for share in shares}) == 1
    assert documents(row for share in shares for row in share) == documents(whole)
    assert sum(row.trained_tokens for share in shares for row in share) == sum(row.trained_tokens for row in whole)
    for row in (row for share in shares for row in share):
        assert len(row.ids) == len(row.weights) == len(row.positions) == sum(row.document_tokens) <= 10
        starts = np.cumsum((0, *row.document_tokens))[:-1]
        assert (row.positions[starts] == 0).all()
        assert (row.weights[starts] == 0).all()


def test_a_shared_beginning_is_still_shared_where_a_row_is_halved() -> None:
    """Eight documents behind one beginning, in a row for each of two processes, not in eight."""
    beginning, made = np.full(40, 99, dtype=np.int32), []
    for number in range(8):
        weights = np.zeros(45, dtype=np.float32)
        weights[40:] = 1
        ids = np.concatenate([beginning, np.full(5, number, dtype=np.int32)])
        made.append(Example(Address("made", number), 0, ids, weights, ()))
    (whole,) = pack_rows(made, row_tokens=1000, share_prefixes=True)
    assert whole.document_tokens == (40, *(5,) * 8)

    shares = [split_over_ranks([whole], rank=rank, world_size=2) for rank in range(2)]

    assert [[row.document_tokens for row in share] for share in shares] == [[(40, 5, 5, 5, 5)]] * 2
    assert {address for share in shares for row in share for address in row.addresses} == set(whole.addresses)
    assert sum(row.trained_tokens for share in shares for row in share) == whole.trained_tokens
    for (row,) in shares:
        assert row.parents == (-1, 0, 0, 0, 0)
        assert (row.positions == [*range(40), *([*range(40, 45)] * 4)]).all()


def test_nothing_is_trained_in_a_row_that_only_keeps_step() -> None:
    rows = pack_rows(examples(6), row_tokens=10)

    (filler,) = split_over_ranks(rows, rank=1, world_size=2)

    assert filler.trained_tokens == 0
    assert filler.addresses == ()
    assert len(filler.ids) == 2


def test_rows_of_one_place_are_of_like_length() -> None:
    rows = pack_rows(examples(10, 10, 3, 8, 9), row_tokens=10)

    first, second = (split_over_ranks(rows, rank=rank, world_size=2) for rank in range(2))

    assert [(len(a.ids), len(b.ids)) for a, b in zip(first, second, strict=True)] == [(10, 10), (9, 8), (3, 2)]


def test_batches_of_a_process_hold_the_count_of_all() -> None:
    made = examples(3, 4, 5, 6, 7)
    order = Sampler(len(made), 3, 1.0, 0)

    alone = list(batches(made, order, row_tokens=10))
    shares = [list(batches(made, order, row_tokens=10, rank=rank, world_size=2)) for rank in range(2)]

    for batch, *parts in zip(alone, *shares, strict=True):
        assert {part.trained_tokens for part in parts} == {batch.trained_tokens}
        assert len({len(part.rows) for part in parts}) == 1
        assert sum(row.trained_tokens for part in parts for row in part.rows) == batch.trained_tokens
