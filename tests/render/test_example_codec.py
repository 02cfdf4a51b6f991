"""Examples as bytes: nothing is lost on the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.render.example_codec import example_from_bytes, example_to_bytes
from tutelage.types import Address, Example, Turn

ADDRESS = Address("rows.jsonl", 7)


@st.composite
def an_example(draw: st.DrawFn, most_id: int = 65_535) -> Example:
    ids = draw(st.lists(st.integers(0, most_id), min_size=1, max_size=40))
    weights = draw(st.lists(st.sampled_from([0.0, 1.0, 0.5, 1e-6, 1e6, 0.1]), min_size=len(ids), max_size=len(ids)))
    places = st.integers(0, 2**31 - 1)
    turns = draw(st.lists(st.builds(Turn, places, places, places, st.booleans()), max_size=3))
    return Example(
        ADDRESS,
        draw(st.integers(0, 9)),
        np.asarray(ids, dtype=np.int32),
        np.asarray(weights, dtype=np.float32),
        tuple(turns),
    )


def assert_equal(one: Example, other: Example) -> None:
    assert (one.address, one.part, one.turns) == (other.address, other.part, other.turns)
    assert one.ids.dtype == other.ids.dtype == np.int32
    assert one.weights.dtype == other.weights.dtype == np.float32
    assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(one.weights, other.weights)


@given(an_example(), st.sampled_from([65_536, 65_537, 200_000]))
def test_an_example_comes_back_as_it_was(example: Example, vocabulary_size: int) -> None:
    assert_equal(example_from_bytes(example_to_bytes(example, vocabulary_size=vocabulary_size), ADDRESS), example)


@given(an_example(most_id=2**31 - 1))
def test_large_ids_come_back_from_a_large_vocabulary(example: Example) -> None:
    assert_equal(example_from_bytes(example_to_bytes(example, vocabulary_size=2**31 - 1), ADDRESS), example)


@pytest.mark.parametrize(("vocabulary_size", "bytes_each"), [(65_536, 2), (65_537, 4)])
def test_an_id_takes_two_bytes_where_the_vocabulary_allows(vocabulary_size: int, bytes_each: int) -> None:
    short, long = (
        Example(ADDRESS, 0, np.ones(size, dtype=np.int32), np.zeros(size, dtype=np.float32), ()) for size in (10, 110)
    )
    sizes = [len(example_to_bytes(one, vocabulary_size=vocabulary_size)) for one in (short, long)]
    assert sizes[1] - sizes[0] == 100 * bytes_each


def test_what_comes_back_can_be_written_to() -> None:
    example = Example(ADDRESS, 0, np.ones(3, dtype=np.int32), np.ones(3, dtype=np.float32), ())
    back = example_from_bytes(example_to_bytes(example, vocabulary_size=10), ADDRESS)
    back.ids[0], back.weights[0] = 5, 0.0
    assert back.ids.tolist() == [5, 1, 1]
    assert back.weights.tolist() == [0.0, 1.0, 1.0]
