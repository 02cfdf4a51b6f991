"""Sources that are visited more or less often: exact counts, and still a pure function of seed and step."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pack import Sampler
from tutelage.pack.sampler import Source

WEIGHTS = st.sampled_from([0.05, 0.1, 0.29, 1 / 3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.25])


@st.composite
def orders(draw: Any) -> Sampler:
    """Examples of up to four sources, in any mixture of places."""
    kinds = draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    sources = []
    for number in sorted(set(kinds)):
        places = np.flatnonzero(np.array(kinds) == number).astype(np.int32)
        sources.append(Source(f"source {number}", number, places, draw(WEIGHTS)))
    return Sampler(
        examples=len(kinds),
        batch_size=draw(st.integers(1, 9)),
        epochs=draw(st.floats(0.1, 6.0)),
        seed=draw(st.integers(0, 2**32)),
        max_steps=draw(st.none() | st.integers(1, 20)),
        sources=tuple(sources),
    )


def visited(order: Sampler) -> list[int]:
    return list(itertools.chain.from_iterable(chosen for _, _, chosen in order.indices()))


@given(order=orders())
def test_visits_are_counted_exactly(order: Sampler) -> None:
    """After every whole epoch a source of n examples and weight w has had floor(E w n) visits, evenly spread."""
    seen = visited(order)
    for epoch in range(1, 9):
        totals = [math.floor(epoch * Fraction(str(source.weight)) * len(source.indices)) for source in order.sources]
        if sum(totals) > len(seen):
            break
        counts = Counter(seen[: sum(totals)])
        for source, total in zip(order.sources, totals, strict=True):
            each = [counts[place] for place in source.indices.tolist()]
            assert sum(each) == total
            assert max(each) - min(each) <= 1


@given(order=orders())
def test_the_lengths_of_the_run(order: Sampler) -> None:
    steps = list(order.indices())
    assert [step for step, _, _ in steps] == list(range(order.steps))
    assert all(len(chosen) == order.batch_size for _, _, chosen in steps[:-1])
    assert 1 <= len(steps[-1][2]) <= order.batch_size
    exact = sum(Fraction(str(source.weight)) * len(source.indices) for source in order.sources)
    assert order.epoch_visits == float(exact)
    if order.max_steps is None:
        assert sum(len(chosen) for _, _, chosen in steps) == order.visits == max(1, round(order.epochs * float(exact)))


@given(order=orders(), share=st.floats(0, 1))
def test_a_resumed_run_sees_the_same_tail(order: Sampler, share: float) -> None:
    start = math.floor(share * order.steps)
    assert list(order.indices(start)) == list(order.indices())[start:]


@given(order=orders())
def test_weights_of_one_are_no_weights(order: Sampler) -> None:
    sources = tuple(Source(source.name, source.number, source.indices, 1.0) for source in order.sources)
    even = Sampler(order.examples, order.batch_size, order.epochs, order.seed, order.max_steps, sources)
    plain = Sampler(order.examples, order.batch_size, order.epochs, order.seed, order.max_steps)
    assert list(even.indices()) == list(plain.indices())


def two(weight: float, **changes: Any) -> Sampler:
    """Examples 0 to 9 of the first source, 10 to 19 of the second, which has the weight."""
    places = np.arange(20, dtype=np.int32)
    sources = (Source("a", 0, places[:10], 1.0), Source("b", 1, places[10:], weight))
    return Sampler(**{"examples": 20, "batch_size": 5, "epochs": 2.0, "seed": 3, "sources": sources} | changes)


def test_half_of_a_source_each_epoch() -> None:
    seen = visited(two(0.5))
    first, second = seen[:15], seen[15:]
    assert sorted(one for one in first if one < 10) == sorted(one for one in second if one < 10) == list(range(10))
    halves = [{one for one in epoch if one >= 10} for epoch in (first, second)]
    assert [len(half) for half in halves] == [5, 5]
    assert halves[0] | halves[1] == set(range(10, 20))
    assert max(first.index(halve) for halve in halves[0]) > 5, "among the others, not before them"


def test_twice_a_source_each_epoch() -> None:
    order = two(2.0, epochs=1.0)
    assert (order.visits, order.steps, order.epoch_visits) == (30, 6, 30.0)
    counts = Counter(visited(order))
    assert all(counts[place] == (1 if place < 10 else 2) for place in range(20))


def test_seeds_epochs_and_sources_draw_apart() -> None:
    assert visited(two(0.5)) != visited(two(0.5, seed=4))
    source = Source("a", 0, np.arange(50, dtype=np.int32), 1.0)
    other = Source("b", 1, np.arange(50, dtype=np.int32), 1.0)
    passes = [one.visits(0, first, first + 50).tolist() for one in (source, other) for first in (0, 50)]
    assert all(sorted(pass_) == list(range(50)) for pass_ in passes)
    assert all(one != two_ for one, two_ in itertools.combinations(passes, 2))


@pytest.mark.parametrize(("weight", "visits"), [(0.29, 29), (0.1, 10), (0.57, 57), (1.15, 115)])
def test_a_weight_is_the_decimal_number_that_was_written(weight: float, visits: int) -> None:
    """In binary 0.29 times 100 is a little less than 29."""
    order = Sampler(100, 7, 1.0, 0, sources=(Source("a", 0, np.arange(100, dtype=np.int32), weight),))
    assert len(visited(order)) == visits
    assert order.epoch_visits == visits
