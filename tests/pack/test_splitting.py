"""Rows in smaller pieces: no document is lost, altered or moved, with shared beginnings and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pack import pack_rows
from tutelage.pack.splitting import split_rows
from tutelage.types import Address, Example, PackedSequence, Turn

OPENINGS = [list(range(30)), list(range(20)) + list(range(50, 70)), [7] * 18]


@st.composite
def example_lists(draw: st.DrawFn) -> list[Example]:
    """Documents of which many begin alike; what follows differs in each."""
    made = []
    for number in range(draw(st.integers(1, 12))):
        opening = draw(st.sampled_from([[], *OPENINGS]))
        own = draw(st.integers(2, 20))
        ids = np.asarray([*opening, *range(1000 + 40 * number, 1000 + 40 * number + own)], dtype=np.int32)
        weights = np.zeros(len(ids), dtype=np.float32)
        weights[-1] = 1.0
        made.append(Example(Address("rows.jsonl", number), 0, ids, weights, (Turn(1, len(ids) - 1, len(ids)),)))
    return made


def whole_documents(row: PackedSequence) -> list[tuple[Address, list[int], list[float], list[int]]]:
    """Each document of a row with all it continues, followed from its last token to its first."""
    before, ends = row.predecessors(), np.cumsum(row.document_tokens)
    found = []
    leaves = [index for index in range(len(ends)) if index not in set(row.parents)]
    for address, leaf in zip(row.addresses, leaves, strict=True):
        places = []
        at = int(ends[leaf]) - 1
        while at >= 0:
            places.append(at)
            at = int(before[at])
        places.reverse()
        found.append((address, row.ids[places].tolist(), row.weights[places].tolist(), row.positions[places].tolist()))
    return found


@pytest.mark.parametrize("share_prefixes", [False, True])
@given(examples=example_lists(), limit=st.integers(1, 160))
def test_the_same_documents_in_the_same_order(share_prefixes: bool, examples: list[Example], limit: int) -> None:
    rows = pack_rows(examples, row_tokens=200, share_prefixes=share_prefixes)
    smaller = split_rows(rows, limit)

    assert [whole_document for row in smaller for whole_document in whole_documents(row)] == [
        whole_document for row in rows for whole_document in whole_documents(row)
    ]
    for row in smaller:
        assert len(row.ids) == len(row.weights) == len(row.positions) == sum(row.document_tokens)
        assert len(row.ids) <= limit or len(row.addresses) == 1
    assert sum(row.trained_tokens for row in smaller) == sum(example.trained_tokens for example in examples)


@pytest.mark.parametrize("share_prefixes", [False, True])
@given(examples=example_lists())
def test_rows_that_fit_stay_as_they_are(share_prefixes: bool, examples: list[Example]) -> None:
    rows = pack_rows(examples, row_tokens=200, share_prefixes=share_prefixes)
    for limit in (None, 200):
        assert all(one is other for one, other in zip(split_rows(rows, limit), rows, strict=True))


@pytest.mark.parametrize("share_prefixes", [False, True])
@given(examples=example_lists())
def test_halving_ends(share_prefixes: bool, examples: list[Example]) -> None:
    """What a loop without memory does: half of the largest row that can be divided, until none can."""
    rows = pack_rows(examples, row_tokens=200, share_prefixes=share_prefixes)
    for _ in range(20):
        several = [row for row in rows if len(row.addresses) > 1]
        if not several:
            break
        fewer = len(rows)
        rows = split_rows(rows, max(len(row.ids) for row in several) // 2)
        assert len(rows) > fewer
    assert all(len(row.addresses) == 1 for row in rows)
