"""Examples as columns: nothing is lost on the way there and back, and their hash does not know of chunks."""

from __future__ import annotations

import hashlib
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.render.example_codec import columns_of
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


def assert_equal(left: Example, right: Example) -> None:
    assert (left.address, left.part, left.turns) == (right.address, right.part, right.turns)
    assert left.ids.dtype == right.ids.dtype == np.int32
    assert left.weights.dtype == right.weights.dtype == np.float32
    assert np.array_equal(left.ids, right.ids)
    assert np.array_equal(left.weights, right.weights)


@given(st.lists(an_example(), max_size=4), st.sampled_from([65_536, 65_537, 200_000]))
def test_examples_come_back_as_they_were(examples: list[Example], vocabulary_size: int) -> None:
    columns = pickle.loads(pickle.dumps(columns_of(examples, vocabulary_size=vocabulary_size)))
    assert len(columns) == len(examples)
    assert columns.tokens.tolist() == [len(example.ids) for example in examples]
    assert columns.trained_tokens.tolist() == [example.trained_tokens for example in examples]
    for index, example in enumerate(examples):
        assert_equal(columns.example(index, ADDRESS), example)


@given(an_example(most_id=2**31 - 1))
def test_large_ids_come_back_from_a_large_vocabulary(example: Example) -> None:
    assert_equal(columns_of([example], vocabulary_size=2**31 - 1).example(0, ADDRESS), example)


@pytest.mark.parametrize(("vocabulary_size", "bytes_each"), [(65_536, 2), (65_537, 4)])
def test_an_id_takes_two_bytes_where_the_vocabulary_allows(vocabulary_size: int, bytes_each: int) -> None:
    example = Example(ADDRESS, 0, np.ones(10, dtype=np.int32), np.zeros(10, dtype=np.float32), ())
    assert columns_of([example], vocabulary_size=vocabulary_size).ids.nbytes == 10 * bytes_each


def test_what_comes_back_can_be_written_to() -> None:
    example = Example(ADDRESS, 0, np.ones(3, dtype=np.int32), np.ones(3, dtype=np.float32), ())
    back = columns_of([example], vocabulary_size=10).example(0, ADDRESS)
    back.ids[0], back.weights[0] = 5, 0.0
    assert back.ids.tolist() == [5, 1, 1]
    assert back.weights.tolist() == [0.0, 1.0, 1.0]


def record_of(example: Example, id_type: str) -> bytes:
    """What is hashed of an Example, by the definition and one number after another."""
    changes = [0, *(np.flatnonzero(np.diff(example.weights)) + 1).tolist(), len(example.ids)]
    runs = [(start, end) for start, end in itertools.pairwise(changes) if example.weights[start] != 0]
    numbers = [len(example.ids), len(example.turns), len(runs), example.part, int(id_type[-1]), example.trained_tokens]
    for turn in example.turns:
        numbers += [turn.message, turn.prompt_end, turn.reply_end, int(turn.ends_with_stop)]
    numbers += [number for run in runs for number in run]
    weights = example.weights[[start for start, _ in runs]]
    return np.asarray(numbers, dtype="<i4").tobytes() + weights.tobytes() + example.ids.astype(id_type).tobytes()


@given(st.lists(an_example(), max_size=5), st.integers(0, 5), st.sampled_from([(65_536, "<u2"), (65_537, "<i4")]))
def test_the_hash_is_that_of_the_examples_however_they_are_cut_into_chunks(
    examples: list[Example], cut: int, vocabulary: tuple[int, str]
) -> None:
    size, id_type = vocabulary
    digest, expected = hashlib.sha256(), hashlib.sha256()
    for chunk in (examples[:cut], examples[cut:]):
        columns_of(chunk, vocabulary_size=size).add_to_hash(digest)
    for example in examples:
        expected.update(record_of(example, id_type))
    assert digest.hexdigest() == expected.hexdigest()
