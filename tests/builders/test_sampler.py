"""Sampling weights from a recipe to the batches of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.builders.dataset import Prepared, prepare
from tutelage.builders.sampler import epoch_steps, epoch_tokens, sampler_for
from tutelage.errors import ConfigError, DataError
from tutelage.model.locate import model_folder

Prepare = Callable[..., tuple[config.Settings, Prepared]]


def write(path: Path, first: int, last: int) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [{"prompt": f"Say {number}.", "response": f"Here it is: {number}."} for number in range(first, last)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def prepared(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Prepare:
    """Prepares a run on 10 rows of `few.jsonl` and 6 + 4 of the folder `more`."""

    def go(*overrides: str, weights: dict[str, float]) -> tuple[config.Settings, Prepared]:
        write(tmp_path / "few.jsonl", 0, 10)
        write(tmp_path / "more" / "a.jsonl", 10, 16)
        write(tmp_path / "more" / "b.jsonl", 16, 20)
        table = ", ".join(f'"{tmp_path / name}" = {weight}' for name, weight in weights.items())
        train = f'data.train=["{tmp_path}/few.jsonl", "{tmp_path}/more"]'
        settings = config.load(
            tiny_recipe(tmp_path),
            [train, f"data.weights={{{table}}}", "data.validation=", "evaluate.task=", *overrides],
        )
        return settings, prepare(settings, model_folder(settings.model.name, log=print))

    return go


def test_a_source_is_a_file_or_all_files_of_a_folder(prepared: Prepare, tmp_path: Path) -> None:
    settings, found = prepared("train.epochs=2", weights={"more": 1.5})

    few, more = found.sources
    assert (few.name, few.weight, len(few.indices)) == (str(tmp_path / "few.jsonl"), 1.0, 10)
    assert (more.name, more.weight, len(more.indices)) == (str(tmp_path / "more"), 1.5, 10)
    order = sampler_for(settings, examples=len(found.train), sources=found.sources)
    counts = Counter(Path(found.train[place].address.file).parent.name for _, _, chosen in order.indices()
                     for place in chosen)  # fmt: skip
    assert counts == {"more": 30, tmp_path.name: 20}
    assert (order.visits, order.steps, epoch_steps(order)) == (50, 7, 4)
    tokens = [len(one.ids) for one in found.train]
    assert epoch_tokens(found.train, found.sources) == sum(tokens[:10]) + 1.5 * sum(tokens[10:])


def test_no_weights_leave_the_order_as_it_was(prepared: Prepare) -> None:
    settings, found = prepared(weights={})
    assert found.sources == ()
    assert epoch_tokens(found.train, ()) == found.train_totals.tokens
    assert sampler_for(settings, examples=20, sources=()).visits == 80


def test_weights_count_what_is_left_after_rows_were_held_out(prepared: Prepare) -> None:
    _, found = prepared("data.validation_ratio=0.5", weights={"few.jsonl": 2})
    assert len(found.train) == len(found.validation) == 10
    assert sum(len(source.indices) for source in found.sources) == 10
    for source in found.sources:
        assert {found.train[int(place)].address.file.startswith(source.name) for place in source.indices} == {True}


def test_a_source_that_is_not_trained_on_is_refused_with_those_that_are(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(weights={"fewer.jsonl": 2})
    assert f"names {tmp_path}/fewer.jsonl" in str(caught.value.found)
    assert f"{tmp_path}/few.jsonl, {tmp_path}/more" in str(caught.value.found)


def test_a_weight_for_nothing_is_an_error(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is left") as caught:
        prepared("data.max_rows=10", weights={"more": 2})
    assert caught.value.where == str(tmp_path / "more")


def test_a_run_counts_its_epochs_by_visits(train_tiny: Callable[..., Any], tmp_path: Path, record_of: Any) -> None:
    """24 rows of the tiny recipe and 10 of another file, at half weight: 29 visits an epoch, 4 steps of 8."""
    write(tmp_path / "extra.jsonl", 0, 10)
    home = tmp_path / "home" / "train.jsonl"
    finished = train_tiny(
        f'data.train=["{home}", "{tmp_path}/extra.jsonl"]',
        f'data.weights={{"{tmp_path}/extra.jsonl" = 0.5}}',
        "train.epochs=2",
        "evaluate.before=false",
        "evaluate.task=",
    )

    steps, heldout = record_of(finished.folder)
    assert len(steps) == 8  # 58 visits
    assert finished.result["epochs"] == 2.0
    assert steps[5]["epoch"] == pytest.approx(32 / 29)
    assert sorted(heldout) == list(range(1, 9)), "a quarter of 4 steps"
