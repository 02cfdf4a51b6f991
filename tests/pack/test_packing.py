from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pack import Sampler, batches, pack_rows
from tutelage.types import Address, Example, PackedSequence, Turn


def made(number: int, tokens: int, weight: float = 1.0) -> Example:
    """An example whose ids say which it is: `number * 1000 + position`; the second half is trained."""
    ids = np.arange(tokens, dtype=np.int32) + number * 1000
    weights = np.zeros(tokens, dtype=np.float32)
    start = max(1, tokens // 2)
    weights[start:] = weight
    return Example(Address("rows.jsonl", number), 0, ids, weights, (Turn(1, start, tokens),))


@st.composite
def example_lists(draw: st.DrawFn) -> list[Example]:
    lengths = draw(st.lists(st.integers(2, 64), min_size=1, max_size=30))
    return [made(number, tokens, draw(st.sampled_from([0.5, 1.0]))) for number, tokens in enumerate(lengths, start=1)]


def documents(row: PackedSequence) -> list[tuple[Address, list[int], list[float], list[int]]]:
    ends = np.cumsum(row.document_tokens)
    starts = ends - np.asarray(row.document_tokens)
    return [
        (address, row.ids[a:b].tolist(), row.weights[a:b].tolist(), row.positions[a:b].tolist())
        for address, a, b in zip(row.addresses, starts, ends, strict=True)
    ]


class TestRows:
    @given(examples=example_lists(), spare=st.integers(0, 100))
    def test_every_document_once_whole_and_within_the_budget(self, examples: list[Example], spare: int) -> None:
        budget = max(len(example.ids) for example in examples) + spare
        rows = pack_rows(examples, row_tokens=budget)
        packed = {}
        for row in rows:
            assert 0 < len(row.ids) <= budget
            assert len(row.ids) == len(row.weights) == len(row.positions) == sum(row.document_tokens)
            for address, ids, weights, positions in documents(row):
                assert address not in packed
                assert positions == list(range(len(ids)))
                assert weights[0] == 0
                packed[address] = (ids, weights)
        assert packed == {example.address: (example.ids.tolist(), example.weights.tolist()) for example in examples}

    @given(examples=example_lists(), spare=st.integers(0, 100))
    def test_counts_and_types_are_kept(self, examples: list[Example], spare: int) -> None:
        rows = pack_rows(examples, row_tokens=max(len(example.ids) for example in examples) + spare)
        assert sum(row.trained_tokens for row in rows) == sum(example.trained_tokens for example in examples)
        assert {(row.ids.dtype, row.weights.dtype, row.positions.dtype) for row in rows} == {
            (np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.int32))
        }

    @given(examples=example_lists(), spare=st.integers(0, 100))
    def test_no_two_rows_would_fit_in_one(self, examples: list[Example], spare: int) -> None:
        budget = max(len(example.ids) for example in examples) + spare
        rows = pack_rows(examples, row_tokens=budget)
        sizes = sorted(len(row.ids) for row in rows)
        assert len(sizes) < 2 or sizes[0] + sizes[1] > budget

    def test_an_exact_fit(self) -> None:
        rows = pack_rows([made(1, 4), made(2, 6), made(3, 3), made(4, 7)], row_tokens=10)
        assert [row.document_tokens for row in rows] == [(7, 3), (6, 4)]

    def test_the_budget_of_one_example_gives_a_row_each(self) -> None:
        examples = [made(number, 8) for number in range(1, 6)]
        assert [row.document_tokens for row in pack_rows(examples, row_tokens=8)] == [(8,)] * 5

    def test_nothing_in_nothing_out(self) -> None:
        assert pack_rows([], row_tokens=8) == ()

    def test_too_long_is_our_bug(self) -> None:
        with pytest.raises(AssertionError, match=r"rows.jsonl:1: 9 tokens do not fit a row of 8"):
            pack_rows([made(1, 9)], row_tokens=8)

    def test_a_trained_first_token_is_our_bug(self) -> None:
        one = made(1, 8)
        wrong = dataclasses.replace(one, weights=np.ones(8, dtype=np.float32))
        with pytest.raises(AssertionError, match="first token"):
            pack_rows([wrong], row_tokens=8)


class TestBatches:
    EXAMPLES: Final = tuple(made(number, 4 + number % 5) for number in range(1, 24))
    ORDER = Sampler(examples=23, batch_size=5, epochs=1.5, seed=11)

    def test_each_step_packs_what_the_order_chose(self) -> None:
        found = list(batches(self.EXAMPLES, self.ORDER, row_tokens=16))
        assert [one.step for one in found] == list(range(self.ORDER.steps))
        for batch, (_, epoch, chosen) in zip(found, self.ORDER.indices(), strict=True):
            assert batch.epoch == epoch
            assert batch.examples == len(chosen)
            addresses = [address for row in batch.rows for address in row.addresses]
            assert sorted(address.number for address in addresses) == sorted(index + 1 for index in chosen)
            assert batch.trained_tokens == sum(self.EXAMPLES[index].trained_tokens for index in chosen)
            assert batch.tokens == sum(len(self.EXAMPLES[index].ids) for index in chosen)

    @pytest.mark.parametrize("start", [0, 1, 4, 6])
    def test_a_resumed_run_gets_the_same_batches(self, start: int) -> None:
        tail = list(batches(self.EXAMPLES, self.ORDER, row_tokens=16))[start:]
        resumed = list(batches(self.EXAMPLES, self.ORDER, row_tokens=16, start_step=start))
        assert [one.step for one in resumed] == [one.step for one in tail]
        for mine, theirs in zip(resumed, tail, strict=True):
            assert [row.ids.tolist() for row in mine.rows] == [row.ids.tolist() for row in theirs.rows]
            assert mine.trained_tokens == theirs.trained_tokens

    def test_the_budget_changes_the_rows_and_nothing_else(self) -> None:
        small, large = (list(batches(self.EXAMPLES, self.ORDER, row_tokens=budget)) for budget in (8, 1000))
        assert all(len(batch.rows) == 1 for batch in large)
        assert [(one.trained_tokens, one.examples, one.tokens) for one in small] == [
            (one.trained_tokens, one.examples, one.tokens) for one in large
        ]

    def test_an_example_visited_twice_in_one_step_stands_twice(self) -> None:
        (batch,) = batches([made(1, 4)], Sampler(examples=1, batch_size=3, epochs=3.0, seed=0), row_tokens=100)
        assert batch.rows[0].document_tokens == (4, 4, 4)
        assert batch.examples == 3
        assert batch.trained_tokens == 6
