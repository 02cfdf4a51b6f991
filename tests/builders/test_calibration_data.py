"""Which training data `lora.init` looks at: whole sequences in the run's own order, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.builders.calibration_data import calibration_for, first_examples
from tutelage.builders.dataset import Prepared, prepare
from tutelage.builders.resolved_run import resolve
from tutelage.builders.sampler import sampler_for
from tutelage.config import Settings
from tutelage.model.architecture import Architecture
from tutelage.report.console.progress import Screen

Made = Callable[..., tuple[Settings, Prepared]]


@pytest.fixture
def made(tiny_recipe: Callable[[Path], Path], tiny_model_folder: Path, tmp_path: Path) -> Made:
    """The tiny recipe with changes, and its data."""

    def make(*overrides: str) -> tuple[Settings, Prepared]:
        settings = config.load(tiny_recipe(tmp_path / "home"), overrides)
        return settings, prepare(settings, tiny_model_folder)

    return make


def test_they_are_the_first_that_are_trained_until_there_are_enough_tokens(made: Made) -> None:
    settings, prepared = made("lora.init=eva", "lora.init_tokens=200", "train.epochs=3", "train.learning_rate=")

    chosen = first_examples(settings, prepared)

    order = sampler_for(settings, examples=len(prepared.train), sources=prepared.sources)
    visited = [place for _, _, places in order.indices() for place in places]
    expected = [prepared.train[place] for place in visited[: len(chosen)]]
    assert [one.address for one in chosen] == [one.address for one in expected]
    tokens = [len(one.ids) for one in chosen]
    assert sum(tokens) >= 200 > sum(tokens[:-1])


def test_none_is_looked_at_twice_however_many_are_asked_for(made: Made) -> None:
    settings, prepared = made("lora.init=corda", "lora.init_tokens=1000000", "train.epochs=3", "train.learning_rate=")

    chosen = first_examples(settings, prepared)

    everything = [prepared.train[place] for place in range(len(prepared.train))]
    assert sorted(f"{one.address} {one.part}" for one in chosen) == sorted(
        f"{one.address} {one.part}" for one in everything
    )


@pytest.mark.parametrize("documents_isolated", [True, False])
def test_rows_hold_one_document_where_a_model_mixes_them(
    made: Made, quiet_screen: Screen, documents_isolated: bool
) -> None:
    settings, prepared = made("lora.init=lora_ga", "lora.init_tokens=300", "train.learning_rate=")
    look: Any = calibration_for(resolve(settings), prepared, quiet_screen)

    with look(Architecture(documents_isolated=documents_isolated)) as sight:
        documents = [len(row.document_tokens) for row in sight]

    assert (max(documents) > 1) == documents_isolated
    assert sum(documents) == len(first_examples(settings, prepared))


@pytest.mark.parametrize("chosen", ["model.method=full", "lora.init=pissa", "model.method=prompt"])
def test_nothing_else_looks(made: Made, quiet_screen: Screen, chosen: str) -> None:
    settings, prepared = made(chosen, "train.learning_rate=")

    assert calibration_for(resolve(settings), prepared, quiet_screen) is None
