"""Two stores read as one sequence: what a list of both would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pack.test_example_store import EXAMPLES_OF_ROWS, append_rows, plain
from tutelage.pack import ExampleStore, JoinedExamples, Sampler, batches, split_over_ranks
from tutelage.pack.example_store import StoreWriter
from tutelage.pack.splitting import split_rows

TOGETHER = [*EXAMPLES_OF_ROWS[:5], *EXAMPLES_OF_ROWS[7:12]]


@pytest.fixture
def joined(tmp_path: Path) -> JoinedExamples:
    writer = StoreWriter(tmp_path / "store", vocabulary_size=1000)
    append_rows(writer)
    writer.finish()
    store = ExampleStore(tmp_path / "store")
    return JoinedExamples(store[:5], store[7:12])


def test_it_is_a_list_of_both(joined: JoinedExamples) -> None:
    assert len(joined) == len(TOGETHER)
    assert plain(joined) == plain(TOGETHER)
    assert plain([joined[4], joined[5], joined[-1], joined[-10]]) == plain(
        [TOGETHER[4], TOGETHER[5], TOGETHER[-1], TOGETHER[0]]
    )
    with pytest.raises(IndexError):
        joined[10]


@pytest.mark.parametrize("cut", [slice(3), slice(3, 8), slice(-4, None), slice(None, None, -2), slice(5, 5)])
def test_slices_are_those_of_a_list(joined: JoinedExamples, cut: slice) -> None:
    assert plain(joined[cut]) == plain(TOGETHER[cut])


def test_columns_follow_one_another(joined: JoinedExamples) -> None:
    assert joined.column("tokens").tolist() == [len(one.ids) for one in TOGETHER]
    assert joined.column("trained_tokens").dtype == np.int64


@pytest.mark.parametrize("share_prefixes", [False, True])
def test_what_is_replayed_has_rows_apart_where_a_run_asks_for_it(joined: JoinedExamples, share_prefixes: bool) -> None:
    order = Sampler(len(joined), 5, 3.0, 0)
    given = {"row_tokens": 30, "share_prefixes": share_prefixes}
    mixed = list(batches(joined, order, **given))

    for batch, plain_batch in zip(batches(joined, order, **given, replayed_from=5), mixed, strict=True):
        assert (batch.trained_tokens, batch.examples) == (plain_batch.trained_tokens, plain_batch.examples)
        own = {str(example.address) for example in joined[:5]}
        for row in (*batch.rows, *split_rows(batch.rows, 9), *split_over_ranks(batch.rows, rank=1, world_size=2)):
            assert {str(address) in own for address in row.addresses} <= {not row.replayed}
    assert not any(row.replayed for batch in mixed for row in batch.rows)
    groups = [batches(joined, order, **given, replayed_from=5, rank=rank, world_size=2) for rank in range(2)]
    for halves in zip(*groups, strict=True):
        assert len(halves[0].rows) == len(halves[1].rows)
        assert sum(row.trained_tokens for half in halves for row in half.rows) == halves[0].trained_tokens
