"""The end of a run: weights first, then what is measured of them, then the result, then the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from tutelage import config
from tutelage.errors import CheckpointError, SaveError
from tutelage.evaluate import suite as suite_module
from tutelage.evaluate.asking import Served
from tutelage.export import model_folder as model_folder_module
from tutelage.report.console.progress import Screen
from tutelage.runs.folder import read_json
from tutelage.train import run as run_module
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
SHORT = ("train.max_steps=3", "evaluate.before=false")


def resume(folder: Path, screen: Screen) -> Finished:
    return run(config.load(folder / "settings.toml"), screen, resume=True)


def spoken(screen: Screen) -> str:
    file: Any = screen.console.file
    return " ".join(str(file.getvalue()).split())


def test_r2_a_measure_that_fails_leaves_an_empty_cell_and_can_be_taken_later(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen
) -> None:
    """Memory, or positions, run out as the general prompts are answered."""
    prompts_by_set = suite_module._prompts_by_set

    def fails(_place: int) -> Any:
        raise IndexError("index out of range in self")

    def failing(renderer: Any, eval_suite: Any) -> Any:
        return prompts_by_set(renderer, eval_suite) | {"general": Served(2, fails)}

    with monkeypatch.context() as patch:
        patch.setattr(suite_module, "_prompts_by_set", failing)
        finished = train_tiny(*SHORT, "train.evaluate_every=1")
    result, adapter = finished.result, finished.folder / "adapter" / "adapter_model.safetensors"
    weights = adapter.read_bytes()

    assert finished.ended == "finished"
    assert result["unmeasured"] == {"after": {"general": "index out of range in self"}}
    assert result["after"]["general"] is None
    assert result["after"]["heldout_loss"] is not None
    assert result["after"]["exact_match"] is not None
    assert "the general set could not be measured and is left out (index out of range in self)" in spoken(quiet_screen)
    assert f"tutelage train --resume {finished.folder}" in spoken(quiet_screen)
    assert (finished.folder / "report.html").is_file()

    steps: list[Any] = []
    monkeypatch.setattr(run_module, "train", _counting(run_module.train, steps))
    again = resume(finished.folder, quiet_screen)

    assert steps == [], "nothing is trained again"
    assert again.result["unmeasured"] == {}
    assert again.result["after"]["general"] is not None
    task_alone = {"task": again.result["after"]["health"]["task"]}
    assert {**again.result["after"], "general": None, "health": task_alone} == result["after"]
    assert adapter.read_bytes() == weights
    with pytest.raises(CheckpointError, match="is finished"):
        resume(finished.folder, quiet_screen)


def _counting(train: Any, steps: list[Any]) -> Any:
    def counted(parts: Any, batches: Any, progress: Any) -> Any:
        return train(parts, (steps.append(batch) or batch for batch in batches), progress)

    return counted


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_r2_weights_are_on_the_disk_before_anything_is_measured(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, precision: str
) -> None:
    """Even what nobody excuses: here the process is told to end."""

    def ends(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_run_eval_suite", ends)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(*SHORT, f"model.method={method}", f"model.precision={precision}")
    folder = tmp_path / "home" / "runs" / "tiny"
    saved = folder / ("model" if method == "full" else "adapter")
    file = next(saved.glob("*.safetensors"))
    weights = file.read_bytes()
    assert not (folder / "result.json").exists()

    finished = train_tiny(*SHORT, f"model.method={method}", f"model.precision={precision}", resume=True)

    assert finished.result["unmeasured"] == {}
    assert file.read_bytes() == weights


def test_r2_saving_changes_nothing_of_what_is_measured(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen
) -> None:
    """The model computes in bf16 again after its fp32 weights were written."""
    kinds: list[set[Any]] = []
    run_suite = run_module._run_eval_suite

    def seen(job: Any, title: str, *, model: Any, kept: Any) -> Any:
        kinds.append({parameter.dtype for parameter in model.parameters()})
        return run_suite(job, title, model=model, kept=kept)

    monkeypatch.setattr(run_module, "_run_eval_suite", seen)
    train_tiny("train.max_steps=3", "model.precision=bf16", "model.method=full")

    assert kinds[0] == kinds[1]
    assert len(kinds) == 2


def test_a_run_killed_before_its_page_is_completed(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    finished = train_tiny(*SHORT, "evaluate.task=", "evaluate.general=")
    folder = finished.folder
    (folder / "report.html").unlink()
    newest = folder / "checkpoints" / "step-000003"
    shutil.copytree(newest, folder / "checkpoints" / "best-000002")

    again = resume(folder, quiet_screen)

    assert (folder / "report.html").is_file()
    assert not Checkpoints(folder / "checkpoints", keep=1).has_best()
    assert again.result == read_json(folder / "result.json")
    assert "ended before its page was written" in spoken(quiet_screen)
    with pytest.raises(CheckpointError, match="is finished"):
        resume(folder, quiet_screen)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"name": ', b"\xff"])
def test_b20_a_damaged_result_is_said(train_tiny: TrainTiny, quiet_screen: Screen, damage: bytes) -> None:
    folder = train_tiny(*SHORT, "evaluate.task=", "evaluate.general=").folder
    (folder / "result.json").write_bytes(damage)

    with pytest.raises(CheckpointError, match="is damaged"):
        resume(folder, quiet_screen)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_b14_a_disk_that_fills_as_the_model_is_written_says_how_to_go_on(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen, tmp_path: Path, error: Exception
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model_folder_module, "_save_weights", full)
        with pytest.raises(SaveError, match="could not be saved") as caught:
            train_tiny(*SHORT, "evaluate.task=", "evaluate.general=")
    folder = tmp_path / "home" / "runs" / "tiny"

    assert "No space left" in str(caught.value.found)
    assert f"tutelage train --resume {folder}" in str(caught.value.fix)
    assert resume(folder, quiet_screen).ended == "finished"
