"""A run is given more epochs: it goes on with its optimizer, at the first example that was not visited, to the end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.compared_runs import assert_same_weights
from tutelage.api.run import Run
from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import prepare
from tutelage.cli.train import _settings
from tutelage.errors import CheckpointError, ConfigError
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.pack import Sampler
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import read_inputs
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.extension import order_over_parts, parts_in, parts_of, require_more
from tutelage.train.replay import replay
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
SHORT = ("evaluate.task=", "evaluate.general=", "evaluate.before=false", "lora.dropout=0.1", "train.epochs=1")


def going_on(folder: Path, *more: str, screen: Screen) -> Finished:
    return run(_settings(None, list(more), str(folder), strict=False, gated=False), screen, resume=True)


def test_r26_a_run_of_more_epochs_is_the_one_that_had_them_from_the_start(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any
) -> None:
    """To the last bit where the rates are the same: dropout, moments, order, held-out loss."""
    constant = (*SHORT, "train.lr_scheduler=constant", "train.warmup_steps=2")
    whole = train_tiny(*constant, "train.epochs=3", where="whole")
    short = train_tiny(*constant, where="short")
    longer = going_on(short.folder, "train.epochs=2", screen=quiet_screen)
    longest = going_on(longer.folder, "train.epochs=3", screen=quiet_screen)

    assert (short.result["steps"], longer.result["steps"], longest.result["steps"]) == (3, 6, 9)
    assert longest.result["epochs"] == 3.0
    steps, heldout = record_of(longest.folder)
    expected, _ = record_of(whole.folder)
    for step, line in expected.items():
        assert [steps[step][key] for key in ("loss", "gradient_norm", "learning_rate")] == [
            line[key] for key in ("loss", "gradient_norm", "learning_rate")
        ]
    assert heldout
    assert_same_weights(whole.folder, longest.folder, within=1e-12)
    aside = longest.folder / "finished-000003"
    assert json.loads((aside / "result.json").read_text(encoding="utf-8"))["steps"] == 3
    assert (aside / "adapter" / "adapter_model.safetensors").is_file()
    assert Run(longest.folder).evaluate(base=False).heldout_loss == pytest.approx(
        longest.result["after"]["heldout_loss"], abs=1e-6
    )


def test_r26_steps_that_were_taken_keep_their_rates_and_the_rest_is_laid_over_the_new_length(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any
) -> None:
    ordered = (*SHORT, "train.batch_size=10", "train.warmup_ratio=0.0")
    first = train_tiny(*ordered)  # 24 examples: 10, 10, 4
    finished = going_on(first.folder, "train.epochs=2", screen=quiet_screen)

    rates = [line["learning_rate"] for line in record_of(finished.folder)[0].values()]
    old, new = (LRSchedule("cosine", 1e-2, steps, 0) for steps in (3, 6))
    assert rates == pytest.approx([old.rate(step) for step in range(3)] + [new.rate(step) for step in (3, 4, 5)])
    again = replay(str(finished.folder), quiet_screen)
    assert again.difference is None
    assert again.steps == 6


def test_r26_a_stopped_run_may_be_given_another_length_as_well(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any, stop_after: Callable[[int | None], None]
) -> None:
    stop_after(2)
    stopped = train_tiny(*SHORT, "train.lr_scheduler=linear", "train.warmup_ratio=0.0")
    assert stopped.ended == "interrupted"
    stop_after(None)

    finished = going_on(stopped.folder, "train.epochs=2", screen=quiet_screen)

    rates = [line["learning_rate"] for line in record_of(finished.folder)[0].values()]
    assert rates == pytest.approx([1e-2, 1e-2 * 2 / 3, 1e-2 * 4 / 6, 1e-2 * 3 / 6, 1e-2 * 2 / 6, 1e-2 / 6])
    assert not list(finished.folder.glob("finished-*"))


def test_r26_what_patience_ended_goes_on_and_may_end_with_its_old_best(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any
) -> None:
    first = train_tiny(
        *SHORT,
        "train.epochs=50",
        "train.learning_rate=0.3",
        "train.evaluate_every=1",
        "train.early_stopping_patience=2",
    )
    assert first.ended == "early_stop"
    best, taken = first.result["best_step"], first.result["steps"]

    finished = going_on(first.folder, "train.epochs=51", screen=quiet_screen)

    assert finished.result["steps"] >= taken + 2
    heldout = record_of(finished.folder)[1]
    assert finished.result["best_step"] == min(heldout, key=heldout.__getitem__)
    if finished.result["best_step"] == best:
        assert_same_weights(first.folder / f"finished-{taken:06d}", finished.folder)


def test_r26_a_length_that_leaves_nothing_to_do_and_any_other_setting_are_refused(
    train_tiny: TrainTiny, quiet_screen: Screen
) -> None:
    folder = train_tiny(*SHORT).folder
    before = sorted(path.name for path in folder.iterdir())

    with pytest.raises(CheckpointError, match="finished") as finished:
        going_on(folder, screen=quiet_screen)
    assert finished.value.found == "it ended after step 3, as train.epochs = 1 asks for no more"
    assert str(finished.value.fix) == f"train it on: tutelage train --resume {folder} train.epochs=2"
    for more in (["train.epochs=0.5"], ["train.epochs=2", "train.max_steps=3"]):
        with pytest.raises(ConfigError, match="as many steps already"):
            going_on(folder, *more, screen=quiet_screen)
    with pytest.raises(ConfigError, match="keeps its settings"):
        going_on(folder, "train.learning_rate=1", screen=quiet_screen)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert going_on(folder, "train.epochs=2", "train.max_steps=", screen=quiet_screen).result["steps"] == 6


def test_parts_go_on_at_the_visit_after_their_end() -> None:
    old = Sampler(10, 4, 1.5, 3)
    assert (old.steps, old.visits) == (4, 15)
    new = replace(old, epochs=3.0, part_ends=((4, 15),))
    seen = [chosen for _, _, chosen in new.indices()]
    straight = [index for _, _, chosen in replace(old, epochs=3.0).indices() for index in chosen]

    assert [len(one) for one in seen] == [4, 4, 4, 3, 4, 4, 4, 3]
    assert [index for chosen in seen for index in chosen] == straight
    assert [list(index[2]) for index in new.indices(5)] == seen[5:]
    assert new.visits_after(8) == 30


def test_r26_what_patience_ended_and_was_lengthened_is_replayed_and_resumed_alike(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any
) -> None:
    often = ("train.evaluate_every=1", "train.checkpoint_every=1", "train.keep_checkpoints=20")
    first = train_tiny(*SHORT, *often, "train.epochs=50", "train.learning_rate=0.3", "train.early_stopping_patience=2")
    taken = first.result["steps"]
    finished = going_on(first.folder, "train.epochs=51", screen=quiet_screen)
    assert (first.ended, finished.ended) == ("early_stop", "early_stop")

    again = replay(str(finished.folder), quiet_screen)

    assert again.difference is None
    assert again.steps == finished.result["steps"] > taken
    (finished.folder / "result.json").unlink()
    resumed = run(
        _settings(None, [], str(finished.folder), strict=False, gated=False),
        quiet_screen,
        resume=True,
        checkpoint=f"step-{taken - 1:06d}",
    )
    assert resumed.result["steps"] == finished.result["steps"], "it comes by the end of the first length again"


@pytest.mark.parametrize("file", ["inputs.json", "settings.toml"])
def test_b16_a_longer_run_killed_as_it_writes_down_its_length_is_given_it_again(
    train_tiny: TrainTiny, quiet_screen: Screen, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    folder = train_tiny(*SHORT, "train.batch_size=10").folder  # 24 examples: 10, 10, 4
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "write_text", _killed_before(file))
        with pytest.raises(KeyboardInterrupt):
            going_on(folder, "train.epochs=2", screen=quiet_screen)

    finished = going_on(folder, "train.epochs=2", screen=quiet_screen)

    assert finished.result["steps"] == 6, "the second length begins where the first ended"
    assert [one.steps for one in parts_in(read_inputs(folder))] == [3]
    assert replay(str(folder), quiet_screen).difference is None


@pytest.mark.parametrize("file", ["inputs.json", "settings.toml"])
def test_b16_a_start_killed_as_it_writes_down_what_it_begins_with_is_no_run(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    folder = tmp_path / "home" / "runs" / "tiny"
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "write_text", _killed_before(file))
        with pytest.raises(KeyboardInterrupt):
            train_tiny(*SHORT)

    assert train_tiny(*SHORT).ended == "finished"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"], "nothing was moved aside"


def test_b7_names_that_others_use_too_are_a_beginning_beside_our_lock_alone(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds something else"):
        run_files.holds_run(tmp_path)
    (tmp_path / "run.lock").write_text(run_files.LOCK_MARK, encoding="utf-8")
    assert not run_files.holds_run(tmp_path)


def _killed_before(file: str) -> Callable[[Path, str], None]:
    write_text = run_files.write_text

    def write(path: Path, text: str) -> None:
        if path.name == file:
            raise KeyboardInterrupt
        write_text(path, text)

    return write


@pytest.mark.parametrize("ended_by", ["max_steps", "patience"])
def test_r26_what_is_advised_for_a_finished_run_works(
    train_tiny: TrainTiny, quiet_screen: Screen, ended_by: str
) -> None:
    patience = ("train.learning_rate=0.3", "train.evaluate_every=1", "train.early_stopping_patience=1")
    most = 2 if ended_by == "max_steps" else 100
    first = train_tiny(*SHORT, "train.epochs=40", f"train.max_steps={most}", *patience[: 0 if most == 2 else 3])
    folder, taken = first.folder, first.result["steps"]
    assert first.result["stopped_early"] == (ended_by == "patience")

    with pytest.raises(CheckpointError, match="nothing to resume") as finished:
        going_on(folder, screen=quiet_screen)

    reason = "train.epochs = 40 and train.max_steps = 2 asks for no more"
    assert finished.value.found == (
        f"it ended after step {taken}, as {reason if most == 2 else 'the held-out loss no longer improved'}"
    )
    words = shlex.split(str(finished.value.fix).partition(": ")[2])
    assert words[:4] == ["tutelage", "train", "--resume", str(folder)]
    settings = _settings(None, words[4:], str(folder), strict=False, gated=False)
    require_more(folder, settings)
    prepared = prepare(settings, start_folder(settings.model))
    (part,) = parts_of(settings, prepared, read_inputs(folder), resume=True, checkpoint=None)
    assert part.steps == taken < order_over_parts(settings, prepared, (part,)).steps


def test_r26_a_length_that_was_too_short_is_told_one_that_is_not(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    folder = train_tiny(*SHORT, "train.epochs=3", "train.max_steps=8").folder
    with pytest.raises(ConfigError, match="as many steps already") as refused:
        going_on(folder, "train.epochs=1", "train.max_steps=", screen=quiet_screen)
    words = shlex.split(str(refused.value.fix).partition(": ")[2])

    assert going_on(folder, *words[4:], screen=quiet_screen).result["steps"] == 12


def test_b16_the_newest_checkpoint_is_the_one_of_the_most_steps(
    train_tiny: TrainTiny, quiet_screen: Screen, tmp_path: Path
) -> None:
    folder = train_tiny(*SHORT).folder
    for name in ("step-999999", "step-1000000", "step-mine"):
        (folder / "checkpoints" / name).mkdir()
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    assert checkpoints.names() == ["step-1000000", "step-999999", "step-000003"]
    settings = _settings(None, ["train.epochs=1000000"], str(folder), strict=False, gated=False)
    prepared = prepare(settings, start_folder(settings.model))
    (part,) = parts_of(settings, prepared, read_inputs(folder), resume=True, checkpoint=None)
    assert part.steps == 1_000_000
    with pytest.raises(CheckpointError, match="There is no checkpoint 'step-mine'") as caught:
        checkpoints.newest_to_oldest(chosen="step-mine")
    assert caught.value.fix == f"tutelage train --resume {folder} --from step-1000000"
