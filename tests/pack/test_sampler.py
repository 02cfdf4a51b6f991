from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.pack import Sampler

ORDERS = st.builds(
    Sampler,
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    epochs=st.floats(0.05, 4.0),
    seed=st.integers(0, 2**32),
    max_steps=st.none() | st.integers(1, 20),
)


def visited(order: Sampler) -> list[int]:
    return list(itertools.chain.from_iterable(chosen for _, _, chosen in order.indices()))


@given(order=ORDERS)
def test_every_epoch_is_a_permutation(order: Sampler) -> None:
    seen = visited(order)
    whole = len(seen) // order.examples
    for epoch in range(whole):
        assert sorted(seen[epoch * order.examples : (epoch + 1) * order.examples]) == list(range(order.examples))
    rest = seen[whole * order.examples :]
    assert len(set(rest)) == len(rest)


@given(order=ORDERS)
def test_the_lengths_of_the_run(order: Sampler) -> None:
    steps = list(order.indices())
    assert len(steps) == order.steps
    assert [step for step, _, _ in steps] == list(range(order.steps))
    assert all(len(chosen) == order.batch_size for _, _, chosen in steps[:-1])
    assert 1 <= len(steps[-1][2]) <= order.batch_size
    if order.max_steps is None:
        assert len(visited(order)) == order.visits == max(1, round(order.epochs * order.examples))
    else:
        assert order.steps <= order.max_steps


@given(order=ORDERS, share=st.floats(0, 1))
def test_a_resumed_run_sees_the_same_tail(order: Sampler, share: float) -> None:
    start = math.floor(share * order.steps)
    assert list(order.indices(start)) == list(order.indices())[start:]


@given(order=ORDERS)
def test_the_same_settings_give_the_same_order(order: Sampler) -> None:
    again = Sampler(order.examples, order.batch_size, order.epochs, order.seed, order.max_steps)
    assert list(order.indices()) == list(again.indices())


@given(order=ORDERS)
def test_the_epoch_counts_what_was_done_before(order: Sampler) -> None:
    for step, epoch, _ in order.indices():
        assert epoch == step * order.batch_size / order.examples


def test_the_batch_size_cuts_one_order() -> None:
    orders = [Sampler(examples=17, batch_size=size, epochs=2.0, seed=3) for size in (1, 4, 17, 100)]
    first, *others = [visited(order) for order in orders]
    assert all(one == first for one in others)


def test_epochs_differ_and_seeds_differ() -> None:
    seen = visited(Sampler(examples=50, batch_size=10, epochs=2.0, seed=1))
    assert seen[:50] != seen[50:]
    assert seen[:50] != list(range(50))
    assert seen != visited(Sampler(examples=50, batch_size=10, epochs=2.0, seed=2))


@pytest.mark.parametrize(
    ("epochs", "visits", "steps"), [(1.0, 10, 3), (0.5, 5, 2), (0.01, 1, 1), (2.5, 25, 7), (1.5, 15, 4)]
)
def test_fractions_of_an_epoch(epochs: float, visits: int, steps: int) -> None:
    order = Sampler(examples=10, batch_size=4, epochs=epochs, seed=0)
    assert (order.visits, order.steps) == (visits, steps)
    assert len(list(order.indices())[-1][2]) == visits - 4 * (steps - 1)


def test_half_an_epoch_begins_as_the_whole() -> None:
    half = visited(Sampler(examples=10, batch_size=4, epochs=0.5, seed=0))
    assert half == visited(Sampler(examples=10, batch_size=4, epochs=1.0, seed=0))[:5]


def test_max_steps_cuts_and_nothing_more() -> None:
    whole = Sampler(examples=10, batch_size=4, epochs=3.0, seed=0)
    cut = Sampler(examples=10, batch_size=4, epochs=3.0, seed=0, max_steps=2)
    assert list(cut.indices()) == list(whole.indices())[:2]
    assert Sampler(examples=10, batch_size=4, epochs=1.0, seed=0, max_steps=99).steps == 3


def test_nothing_is_left_after_the_end() -> None:
    order = Sampler(examples=10, batch_size=4, epochs=1.0, seed=0)
    assert list(order.indices(3)) == []
    assert list(order.indices(7)) == []
