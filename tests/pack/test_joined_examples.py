"""Two stores read as one sequence: what a list of both would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pack.test_example_store import EXAMPLES_OF_ROWS, append_rows, plain
from tutelage.pack import ExampleStore, JoinedExamples
from tutelage.pack.example_store import StoreWriter

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
