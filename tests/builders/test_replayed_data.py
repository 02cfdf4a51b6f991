"""`data.replay`: which rows come beside those of the task, how many, and where they are counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.builders.test_sampler import write
from tests.support.cli_process import QUIET, tutelage
from tests.support.compared_runs import Record, assert_same_course, assert_same_weights, weights
from tutelage import config
from tutelage.builders.dataset import Prepared, prepare
from tutelage.builders.planning import _data_volume
from tutelage.builders.sampler import questions_of_length, replay_source, sampler_for
from tutelage.errors import CheckpointError, DataError
from tutelage.model.locate import model_folder
from tutelage.pack import Sampler
from tutelage.report.console.progress import Screen
from tutelage.runs.fingerprint import read_inputs
from tutelage.train.run import run

Prepare = Callable[..., tuple[config.Settings, Prepared, Sampler]]
SHORT = (*QUIET, "train.epochs=2.0")


@pytest.fixture
def prepared(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Prepare:
    """Prepares a run on 38 rows of a task and 30 that are replayed."""

    def go(*overrides: str) -> tuple[config.Settings, Prepared, Sampler]:
        write(tmp_path / "own.jsonl", 0, 38)
        write(tmp_path / "replayed.jsonl", 100, 130)
        given = [f'data.train=["{tmp_path}/own.jsonl"]', f'data.replay=["{tmp_path}/replayed.jsonl"]']
        settings = config.load(tiny_recipe(tmp_path), [*given, "data.validation=", "evaluate.task=", *overrides])
        found = prepare(settings, model_folder(settings.model.name, log=print))
        return settings, found, sampler_for(settings, examples=len(found.train), sources=found.sources)

    return go


def visits(found: Prepared, order: Sampler) -> tuple[list[int], list[int]]:
    """Indices of the task's and of the replayed examples, in the order of their visits."""
    seen = [place for _, _, chosen in order.indices() for place in chosen]
    own = found.train_totals.examples
    return [place for place in seen if place < own], [place for place in seen if place >= own]


@pytest.mark.parametrize(("ratio", "replayed"), [(0.01, 7), (0.05, 40), (0.1, 84), (0.2, 190)])
def test_so_many_rows_of_all_are_replayed_and_none_twice_before_all_were(
    prepared: Prepare, ratio: float, replayed: int
) -> None:
    """Of 20 epochs of 38 rows: 760 of the task, and 760 r / (1 - r) beside them; rounding may add a visit."""
    _, found, order = prepared(f"data.replay_ratio={ratio}", "train.epochs=20", "train.batch_size=7")

    own, others = visits(found, order)

    assert Counter(own[:760]) == dict.fromkeys(range(38), 20)
    assert len(own) <= 761
    assert len(others) == replayed
    assert replayed / (760 + replayed) == pytest.approx(ratio, abs=1 / 760)
    for epoch in range(1, 21):
        counts = Counter(others[: math.floor(epoch * 38 * Fraction(str(ratio)) / (1 - Fraction(str(ratio))))])
        each = [counts[place] for place in range(38, 68)]
        assert max(each) - min(each) <= 1, "each once before any comes again, by the end of an epoch"
    assert (
        {found.train[place].address.file for place in others}
        == {found.train[38].address.file}
        != {found.train[0].address.file}
    )


def test_replayed_rows_are_mixed_over_the_epoch_and_another_seed_takes_others(prepared: Prepare) -> None:
    chosen, places = [], []
    for seed in (7, 7, 8):
        _, _, order = prepared("data.replay_ratio=0.2", "train.epochs=1", f"seed={seed}")
        seen = [place for _, _, chosen in order.indices() for place in chosen]
        places.append([number for number, place in enumerate(seen) if place >= 38])
        chosen.append([place for place in seen if place >= 38])

    assert chosen[0] == chosen[1] != chosen[2]
    assert places[0][0] < len(seen) / 2 < places[0][-1]
    assert places[0] != list(range(places[0][0], places[0][0] + len(places[0])))


def test_an_order_goes_on_at_any_step(prepared: Prepare) -> None:
    _, _, order = prepared("data.replay_ratio=0.1", "train.epochs=5")

    whole = list(order.indices())

    assert list(order.indices(start_step=11)) == whole[11:]


def test_weights_and_replay_go_together(prepared: Prepare, tmp_path: Path) -> None:
    table = f'data.weights={{"{tmp_path}/own.jsonl" = 2.0}}'

    _, found, order = prepared("data.replay_ratio=0.05", "train.epochs=1", table)

    own, others = visits(found, order)
    assert (len(own), len(others)) == (76, 4)


def test_what_is_held_out_asked_and_announced_is_of_the_task(prepared: Prepare) -> None:
    settings, found, _ = prepared("data.replay_ratio=0.1", "data.validation_ratio=0.5", "data.max_rows=20")

    files = {Path(example.address.file).name for example in found.validation}
    assert files == {"own.jsonl"}
    assert (len(found.validation), found.train_totals.examples, len(found.train)) == (10, 10, 40)
    assert found.system_prompt is None
    assert settings.data.replayed == settings.data.replay


def test_books_hashes_and_plans_count_what_is_replayed(prepared: Prepare, tmp_path: Path) -> None:
    settings, found, order = prepared("data.replay_ratio=0.05")

    assert (found.ledger.rows_in, found.ledger.rows_kept) == (68, 68)
    assert f"Replay: 2 of 30 sequences an epoch, 5.00% of all: {tmp_path}/replayed.jsonl" in found.ledger.notes
    assert str(tmp_path / "replayed.jsonl") in found.data_sha256
    assert set(found.examples_sha256) == {"train", "validation", "replay"}
    volume = _data_volume(settings, found)
    lengths = [len(example.ids) for example in found.train]
    assert (volume.examples, volume.steps) == (40, order.steps)
    assert volume.tokens == round(sum(lengths[:38]) + 2 / 30 * sum(lengths[38:]))


def test_nothing_is_read_where_none_is_taken(prepared: Prepare, tmp_path: Path) -> None:
    _, found, _ = prepared("data.replay_ratio=0.0")

    assert (len(found.train), found.sources, set(found.examples_sha256)) == (38, (), {"train", "validation"})
    assert str(tmp_path / "replayed.jsonl") not in found.data_sha256


def test_a_file_that_is_trained_on_as_a_whole_is_not_replayed(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="replayed in part") as caught:
        prepared(f'data.replay=["{tmp_path}/o*n.jsonl"]')
    assert caught.value.found == str(tmp_path / "own.jsonl")


def test_too_few_and_too_many_visits_are_questioned(prepared: Prepare) -> None:
    settings, _, order = prepared("data.replay_ratio=0.01", "train.epochs=2")
    assert any("replays nothing" in question for question in questions_of_length(settings, order))

    settings, found, order = prepared("data.replay_ratio=0.5", "train.epochs=2")
    source = replay_source(found.sources)
    assert source is not None
    assert source.epoch_visits == 38
    assert any("takes each 1.27 times" in question for question in questions_of_length(settings, order))

    settings, _, order = prepared("data.replay_ratio=0.1", "train.epochs=2")
    assert not questions_of_length(settings, order)


def test_a_run_without_any_is_bit_for_bit_the_plain_one(train_tiny: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "replayed.jsonl", 100, 130)
    plain = train_tiny(*SHORT, where="plain").folder
    nothing = train_tiny(
        *SHORT, f'data.replay=["{tmp_path}/replayed.jsonl"]', "data.replay_ratio=0.0", where="nothing"
    ).folder

    assert_same_weights(plain, nothing, within=1e-30)


def test_a_resumed_run_replays_the_same_rows_and_two_processes_too(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    tmp_path: Path,
) -> None:
    general = tmp_path / "replayed.jsonl"
    write(general, 100, 130)
    given = (*SHORT, "train.learning_rate=0.0003", f'data.replay=["{general}"]', "data.replay_ratio=0.2")
    whole = train_tiny(*given, where="whole")
    steps, _ = record_of(whole.folder)
    assert (len(steps), whole.result["epochs"]) == (8, 2.0)  # 60 visits of which 12 are replayed
    stop_after(5)
    stopped = train_tiny(*given, where="stopped")
    stop_after(None)

    before = general.read_bytes()
    general.write_bytes(before.replace(b"Say 100.", b"Say 777."))
    with pytest.raises(CheckpointError, match="The data is not the one"):
        run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)
    general.write_bytes(before)
    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    found, _ = record_of(resumed.folder)
    assert [found[step]["loss"] for step in range(1, 9)] == [steps[step]["loss"] for step in range(1, 9)]
    a, b = weights(whole.folder), weights(resumed.folder)
    assert all(bool((a[name] == b[name]).all()) for name in a)
    assert str(general) in read_inputs(resumed.folder)["data_sha256"]

    recipe = tiny_recipe(tmp_path / "two")
    done = tutelage("train", str(recipe), *given, torchrun=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert_same_course(record_of(whole.folder), record_of(recipe.parent / "runs" / "tiny"))


def test_check_and_dry_run_say_how_much(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path / "replayed.jsonl", 100, 130)
    recipe = tiny_recipe(tmp_path / "home")
    given = (str(recipe), f'data.replay=["{tmp_path}/replayed.jsonl"]', "data.replay_ratio=0.2")

    checked = tutelage("check", *given, "--json")
    dry = tutelage("train", *given, "--dry-run")

    books = json.loads(checked.stdout)
    assert books["ledger"]["rows_in"] == 24 + 30 + 6 + 4
    assert any("replay" in pair for pair in books["most_alike"])
    assert "6 of 30 sequences an epoch, 20.00% of all" in " ".join(dry.stdout.split())
