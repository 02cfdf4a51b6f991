"""Batches made ahead: the same ones in order, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tutelage.train.dataloader import BATCHES_AHEAD, ahead
from tutelage.types import Batch, PackedSequence


def a_batch(step: int) -> Batch:
    ids = np.arange(4, dtype=np.int32) + step
    return Batch(step, 0.0, (PackedSequence(ids, np.ones(4, dtype=np.float32), ids, (4,), ()),), 4, 1)


def alive() -> int:
    return sum(one.name == "batches" for one in threading.enumerate())


def test_the_same_batches_come_in_order() -> None:
    made = [a_batch(step) for step in range(7)]

    assert [id(one) for one in ahead(made, pin=False)] == [id(one) for one in made]
    assert alive() == 0


def test_they_are_made_while_earlier_ones_are_used_but_not_all_at_once() -> None:
    started: list[int] = []

    def slow() -> Iterator[Batch]:
        for step in range(20):
            started.append(step)
            yield a_batch(step)

    batches = ahead(slow(), pin=False)
    assert next(batches).step == 0
    until = time.monotonic() + 10
    while len(started) < BATCHES_AHEAD + 2 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    assert started == list(range(BATCHES_AHEAD + 2)), "those that wait, the one in hand, and the one being handed on"
    batches.close()  # type: ignore[attr-defined] # it is a generator
    assert alive() == 0


def test_an_error_comes_where_its_batch_would_have() -> None:
    def broken() -> Iterator[Batch]:
        yield a_batch(0)
        raise ValueError("row 2 is broken")

    batches = ahead(broken(), pin=False)

    assert next(batches).step == 0
    with pytest.raises(ValueError, match="row 2"):
        next(batches)
    assert alive() == 0
