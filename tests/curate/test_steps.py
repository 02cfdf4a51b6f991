"""What holds for every step of the table."""

from __future__ import annotations

import pickle
from threading import Lock

import pytest

pytest.importorskip("ftfy", reason="the extra [curate] is not installed")

from tutelage.config.curation import DEFAULT_STEPS, CurateSettings
from tutelage.curate.step import StepContext
from tutelage.curate.steps import build_steps


def test_the_default_steps_travel_to_workers_whoever_is_told_how_far_they_are() -> None:
    lock = Lock()

    def show(_title: str, _done: int, _total: int | None) -> None:  # as the bars of a terminal: it cannot travel
        with lock:
            pass

    steps = build_steps(CurateSettings(), StepContext(progress=show))
    assert [pickle.loads(pickle.dumps(step)).name for step in steps] == DEFAULT_STEPS
