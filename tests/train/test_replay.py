"""A run again from its settings: the same to the last bit, or the first number that is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tutelage.errors import CheckpointError, ConfigError, SourceNotFoundError
from tutelage.report.console.progress import Screen
from tutelage.runs.fingerprint import read_inputs, write_inputs
from tutelage.runs.metrics_log import read_record
from tutelage.system.seals import sealed_line
from tutelage.train.replay import replay
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
QUICK = ("evaluate.before=false", "evaluate.task=", "evaluate.general=", "lora.dropout=0.1", "train.epochs=2.0")


@pytest.fixture
def finished(train_tiny: TrainTiny) -> Path:
    return train_tiny(*QUICK).folder


def spoil_record(folder: Path, step: int, key: str, value: Any) -> None:
    path = folder / "record.jsonl"
    lines = read_record(path)[0]
    for line in lines:
        if line["step"] == step and key in line:
            line[key] = value
    path.write_text("".join(sealed_line(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(("method", "precision"), [("lora", "bf16"), ("full", "fp32")])
def test_the_same_settings_give_the_same_run(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any, method: str, precision: str
) -> None:
    dropout = ["lora.dropout="] if method == "full" else []
    folder = train_tiny(*QUICK, *dropout, f"model.method={method}", f"model.precision={precision}").folder

    found = replay(str(folder), quiet_screen)

    assert found.difference is None
    assert (found.steps, found.weights) == (6, "adapter" if method == "lora" else "model")
    assert found.causes == ()
    assert found.folder == folder.with_name("tiny.replay")
    assert record_of(found.folder)[1] == record_of(folder)[1]
    assert (found.folder / "result.json").is_file()


def test_another_seed_is_another_run(finished: Path, quiet_screen: Screen) -> None:
    settings = finished / "settings.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("seed = 7", "seed = 8"), encoding="utf-8")

    found = replay(str(finished), quiet_screen)

    assert str(found.difference).startswith("step 1, loss: ")
    assert found.steps == 1, "nothing is to be learnt from the steps after"
    assert "seed = 7 then, 8 now" in found.causes


@pytest.mark.parametrize(
    ("key", "value"), [("loss", 1.25), ("gradient_norm", 0.5), ("tokens", 3), ("heldout_loss", None)]
)
def test_the_first_number_that_differs_is_named(finished: Path, quiet_screen: Screen, key: str, value: Any) -> None:
    spoil_record(finished, 4, key, value)

    found = replay(str(finished), quiet_screen)

    assert found.difference is not None
    assert found.difference.what == f"step 4, {key}"
    assert found.difference.recorded == str(value)
    assert not (found.folder / "result.json").exists(), "it ended there"


def test_weights_that_differ_are_named(finished: Path, quiet_screen: Screen) -> None:
    path = finished / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[2]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, path)

    found = replay(str(finished), quiet_screen)

    assert found.difference is not None
    assert found.difference.what == f"adapter_model.safetensors, {name}"
    assert "away" in found.difference.repeated


def test_what_has_changed_is_offered_as_the_cause(finished: Path, quiet_screen: Screen) -> None:
    inputs = read_inputs(finished)
    inputs["versions"]["torch"] = "1.0"
    inputs["machine"]["threads"] = 64
    write_inputs(finished, inputs)

    found = replay(str(finished), quiet_screen, into=str(finished.parent / "again"))

    assert found.folder.name == "again"
    assert [cause.partition(",")[0] for cause in found.causes] == ["threads: 64 then", "torch: 1.0 then"]


def test_other_data_is_refused_before_a_step(finished: Path, quiet_screen: Screen, tmp_path: Path) -> None:
    data = tmp_path / "home" / "train.jsonl"
    data.write_text(data.read_text(encoding="utf-8").replace("lamp", "vase"), encoding="utf-8")

    with pytest.raises(CheckpointError, match="would not be a replay") as caught:
        replay(str(finished), quiet_screen)

    assert caught.value.where == str(data)
    assert not (finished.with_name("tiny.replay") / "record.jsonl").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_an_unfinished_run_is_repeated_as_far_as_it_went(
    train_tiny: TrainTiny, quiet_screen: Screen, keep: int
) -> None:
    """As a kill leaves it: the record is some steps ahead of the newest checkpoint, and its last line breaks off."""
    folder = train_tiny(*QUICK, "train.checkpoint_every=2", f"train.keep_checkpoints={keep + 1}").folder
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000006")
    lines = (folder / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    cut = [line for line in lines if json.loads(line)["step"] <= 5]
    (folder / "record.jsonl").write_text("".join(cut) + '{"step": 6, "epo', encoding="utf-8")
    settings = folder / "settings.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace(f"keep_checkpoints = {keep + 1}", f"keep_checkpoints = {keep}"), encoding="utf-8")

    found = replay(str(folder), quiet_screen)

    assert found.difference is None
    assert (found.steps, found.weights) == (5, "checkpoints/step-000004")


def test_a_replay_does_not_write_into_the_run(finished: Path, quiet_screen: Screen) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    replay(str(finished), quiet_screen)

    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="folder of its own"):
        replay(str(finished), quiet_screen, into=str(finished))


def test_without_a_step_there_is_nothing_to_compare(finished: Path, quiet_screen: Screen) -> None:
    (finished / "record.jsonl").write_text("", encoding="utf-8")

    with pytest.raises(SourceNotFoundError, match="recorded no step"):
        replay(str(finished), quiet_screen)
