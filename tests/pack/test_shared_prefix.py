"""Shared prefixes: every document can be read back whole, nothing trained is shared, and fewer tokens are laid down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pack import Sampler, batches, pack_rows
from tutelage.pack.shared_prefix import MIN_SHARED_TOKENS
from tutelage.types import Address, Example, PackedSequence, Turn

MANY = MIN_SHARED_TOKENS + 4


def example(number: int, prompt: list[int], reply: list[int], weight: float = 1.0) -> Example:
    ids = np.array(prompt + reply, dtype=np.int32)
    weights = np.array([0.0] * len(prompt) + [weight] * len(reply), dtype=np.float32)
    return Example(Address("rows.jsonl", number), 0, ids, weights, (Turn(1, len(prompt), len(ids)),))


@st.composite
def prompts(draw: st.DrawFn) -> list[Example]:
    """Documents from a tree of beginnings, some equal, some deep, some with nothing in common."""
    blocks = {name: [name * 100 + place for place in range(draw(st.integers(1, 40)))] for name in range(1, 6)}
    made = []
    for number in range(draw(st.integers(1, 14))):
        path = draw(st.lists(st.sampled_from(sorted(blocks)), min_size=1, max_size=4))
        prompt = [token for name in path for token in blocks[name]]
        made.append(
            example(
                number,
                prompt,
                [7] * draw(st.integers(1, 12) | st.integers(200, 900)),
                draw(st.sampled_from([0.5, 1.0])),
            )
        )
    return made


def documents(row: PackedSequence) -> dict[Address, tuple[list[int], list[float], list[int]]]:
    """Each document read back through its chain of parents: ids, weights, positions."""
    ends = np.cumsum(row.document_tokens)
    starts = ends - row.document_tokens
    parents = row.parents or (-1,) * len(ends)
    whole: list[list[int]] = []
    for place, parent in enumerate(parents):
        whole.append([*(whole[parent] if parent >= 0 else []), *range(starts[place], ends[place])])
    leaves = [places for number, places in enumerate(whole) if number not in parents]
    return {
        address: (row.ids[places].tolist(), row.weights[places].tolist(), row.positions[places].tolist())
        for address, places in zip(row.addresses, leaves, strict=True)
    }


@given(examples=prompts(), spare=st.integers(0, 200))
def test_every_document_reads_back_whole(examples: list[Example], spare: int) -> None:
    budget = max(len(one.ids) for one in examples) + spare
    rows = pack_rows(examples, row_tokens=budget, share_prefixes=True)

    found = {address: one for row in rows for address, one in documents(row).items()}
    assert all(len(row.ids) <= budget for row in rows)
    assert found == {
        one.address: (one.ids.tolist(), one.weights.tolist(), list(range(len(one.ids)))) for one in examples
    }
    assert sum(row.trained_tokens for row in rows) == sum(one.trained_tokens for one in examples)
    assert sum(row.tokens for row in rows) == sum(len(one.ids) for one in examples)
    assert sum(len(row.ids) for row in rows) <= sum(len(one.ids) for one in examples)


@given(examples=prompts())
def test_predecessors_are_those_of_the_documents(examples: list[Example]) -> None:
    for row in pack_rows(examples, row_tokens=4096, share_prefixes=True):
        before = row.predecessors()
        by_address = {one.address: one for one in examples}
        ends = np.cumsum(row.document_tokens)
        leaves = [number for number in range(len(ends)) if number not in row.parents]
        for leaf, address in zip(leaves, row.addresses, strict=True):
            ids, at = [], int(ends[leaf]) - 1
            while at >= 0:
                ids.append(int(row.ids[at]))
                at = int(before[at])
            assert ids[::-1] == by_address[address].ids.tolist()


def test_a_common_beginning_is_laid_down_once() -> None:
    system = list(range(1000, 1100))
    rows = pack_rows([example(n, [*system, n], [5, 6]) for n in range(8)], row_tokens=1000, share_prefixes=True)

    (row,) = rows
    assert row.document_tokens == (100, *[3] * 8)
    assert row.parents == (-1, *[0] * 8)
    assert len(row.ids) == 124
    assert row.tokens == 8 * 103


def test_beginnings_nest() -> None:
    system, tools = list(range(1000, 1000 + MANY)), list(range(2000, 2000 + MANY))
    with_tools = [example(n, [*system, *tools, n], [5]) for n in range(3)]
    without = [example(n, [*system, n], [5]) for n in range(10, 13)]

    (row,) = pack_rows([*with_tools, *without], row_tokens=1000, share_prefixes=True)

    assert sorted(row.document_tokens) == sorted((MANY, MANY, *[2] * 6))
    inner = row.document_tokens.index(MANY, 1)
    assert row.parents[inner] == 0
    assert sorted(row.parents) == sorted((-1, 0, *[0] * 3, *[inner] * 3))


def test_what_is_trained_is_never_shared() -> None:
    """Two parts of one conversation: the second holds the first's reply as context."""
    prompt, reply = list(range(50)), list(range(100, 140))
    first = example(1, prompt, reply)
    second = example(2, [*prompt, *reply, 9], [5, 6])

    (row,) = pack_rows([first, second], row_tokens=1000, share_prefixes=True)

    assert row.document_tokens == (50, 40, 43)
    assert row.weights[:50].sum() == 0
    assert row.weights[50:90].sum() == 40


def test_a_short_common_beginning_is_not_worth_it() -> None:
    short = list(range(MIN_SHARED_TOKENS - 1))
    (row,) = pack_rows([example(n, [*short, 70 + n], [5]) for n in range(4)], row_tokens=1000, share_prefixes=True)

    assert row.parents == ()


def test_a_beginning_is_shared_where_it_is_long_beside_what_follows() -> None:
    """The third of a group that shares little shares nothing; the two that share more go on doing so."""
    begin, more = list(range(100, 120)), list(range(200, 600))
    long = [8] * 900
    examples = [example(1, begin + more + [1], long), example(2, begin + more + [2], long), example(3, begin, long)]

    (row,) = pack_rows(examples, row_tokens=4096, share_prefixes=True)

    assert sorted(row.document_tokens) == [420, 901, 901, 920]
    assert sorted(row.parents) == [-1, -1, 0, 0] or sorted(row.parents) == [-1, -1, 1, 1]

    (short,) = pack_rows([example(1, begin, [8] * 9), example(2, begin, [9] * 9)], row_tokens=4096, share_prefixes=True)
    assert sorted(short.document_tokens) == [9, 9, 20]


def test_documents_that_share_come_into_one_row() -> None:
    """Longest first would spread both kinds over both rows; by content each beginning is laid down once."""
    kinds = [list(range(start, start + 60)) for start in (1000, 2000)]
    examples = [example(n, [*kinds[n % 2], n], [5] * (1 + n)) for n in range(8)]

    rows = pack_rows(examples, row_tokens=100, share_prefixes=True)

    assert sum(len(row.ids) for row in rows) == 2 * 60 + sum(2 + n for n in range(8))


@pytest.mark.parametrize("share", [False, True])
def test_a_batch_counts_the_tokens_of_its_documents(share: bool) -> None:
    examples = [example(n, [*range(1000, 1100), n], [5, 6]) for n in range(6)]
    (batch,) = batches(examples, Sampler(6, 6, 1.0, 0), row_tokens=2048, share_prefixes=share)

    assert batch.tokens == 6 * 103
    assert batch.computed_tokens == (100 + 6 * 3 if share else 6 * 103)
