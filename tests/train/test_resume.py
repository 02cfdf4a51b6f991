"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

from tutelage import config
from tutelage.errors import CheckpointError
from tutelage.report.console.progress import Screen
from tutelage.runs.fingerprint import read_inputs, write_inputs
from tutelage.runs.folder import read_json, write_json
from tutelage.runs.metrics_log import read_record, record_path
from tutelage.train import run as run_module
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]


def resume(folder: Path, screen: Screen) -> Finished:
    return run(config.load(folder / "settings.toml"), screen, resume=True)


def same_tensors(left: Path, right: Path) -> bool:
    one, other = load_file(left), load_file(right)
    return set(one) == set(other) and all(equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "precision", "at"),
    [
        ("lora", "fp32", 4),
        ("full", "bf16", 1),
        pytest.param("lora", "bf16", 6, marks=pytest.mark.nightly),
        pytest.param("full", "fp32", 11, marks=pytest.mark.nightly),
    ],
)
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(
    train_tiny: TrainTiny,
    record_of: Any,
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    method: str,
    precision: str,
    at: int,
) -> None:
    """Epochs have 3 steps: the stops fall at an epoch's end and inside one; dropout draws random numbers."""
    chosen = [f"model.method={method}", f"model.precision={precision}", "train.evaluate_every=5", "evaluate.task="]
    if method == "lora":
        chosen.append("lora.dropout=0.1")
    whole = train_tiny(*chosen, where="whole")

    stop_after(at)
    stopped = train_tiny(*chosen, where="stopped")
    assert (stopped.ended, stopped.result) == ("interrupted", {})
    assert not (stopped.folder / "result.json").exists()
    stop_after(None)
    resumed = resume(stopped.folder, quiet_screen)

    assert resumed.ended == "finished"
    steps, heldout = record_of(resumed.folder)
    expected_steps, expected_heldout = record_of(whole.folder)
    for key in ("loss", "gradient_norm", "learning_rate", "epoch", "tokens"):
        assert [steps[step][key] for step in sorted(steps)] == [
            expected_steps[step][key] for step in sorted(expected_steps)
        ]
    assert heldout == expected_heldout
    weights = "adapter/adapter_model.safetensors" if method == "lora" else "model/model.safetensors"
    assert same_tensors(resumed.folder / weights, whole.folder / weights)
    masters = "checkpoints/step-000012/masters.safetensors"
    assert same_tensors(resumed.folder / masters, whole.folder / masters)
    assert resumed.result["after"] == whole.result["after"]
    assert resumed.result["before"] == whole.result["before"]
    assert resumed.result["total_tokens"] == whole.result["total_tokens"]
    assert resumed.result["best_step"] == whole.result["best_step"]


def test_the_stopped_run_says_how_to_go_on(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    stop_after(2)
    stopped = train_tiny("evaluate.before=false")

    told = quiet_screen.console.file.getvalue()
    assert f"Stopped after step 2. Go on with: tutelage train --resume {stopped.folder}" in told.replace("\n", "")


def test_changed_data_is_not_resumed(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen, tmp_path: Path
) -> None:
    stop_after(2)
    stopped = train_tiny("evaluate.before=false")
    path = tmp_path / "home" / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("lamp", "vase"), encoding="utf-8")

    with pytest.raises(CheckpointError, match="not the one this run began with") as caught:
        resume(stopped.folder, quiet_screen)

    assert caught.value.where == str(path)


def test_changed_data_in_a_folder_is_not_resumed(
    train_tiny: TrainTiny,
    tiny_recipe: Callable[[Path], Path],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    tmp_path: Path,
) -> None:
    """data.train may name a folder; its files are as much the run's data as a file is."""
    tiny_recipe(tmp_path / "home")
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(tmp_path / "home" / "train.jsonl", shards / "part.jsonl")
    stop_after(2)
    stopped = train_tiny("evaluate.before=false", f'data.train=["{shards}"]')
    stop_after(None)
    path = shards / "part.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("lamp", "vase"), encoding="utf-8")

    with pytest.raises(CheckpointError, match="not the one this run began with"):
        resume(stopped.folder, quiet_screen)


def test_a_changed_template_is_not_resumed(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    template.write_text(chatml + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", encoding="utf-8")
    stop_after(2)
    stopped = train_tiny("evaluate.before=false", f"render.template={template}")
    template.write_text("{# other bytes #}" + template.read_text(encoding="utf-8"), encoding="utf-8")

    with pytest.raises(CheckpointError, match="template"):
        resume(stopped.folder, quiet_screen)


def test_a_damaged_checkpoint_is_not_resumed(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    stop_after(5)
    stopped = train_tiny("evaluate.before=false", "train.checkpoint_every=3")
    newest = stopped.folder / "checkpoints" / "step-000005"
    (newest / "masters.safetensors").write_bytes(b"nothing")

    with pytest.raises(CheckpointError, match="damaged") as caught:
        resume(stopped.folder, quiet_screen)
    assert "step-000003" in str(caught.value.fix)

    assert "--from step-000003" in str(caught.value.fix)

    stop_after(None)
    finished = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True, checkpoint="step-000003")
    assert finished.result["steps"] == 12
    whole = train_tiny("evaluate.before=false", "train.checkpoint_every=3", where="whole")
    for name in ("step-000009", "step-000012"):
        masters = f"checkpoints/{name}/masters.safetensors"
        assert same_tensors(finished.folder / masters, whole.folder / masters)


def test_the_time_of_a_resumed_run_is_that_of_all_its_sessions(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    """The second of three is killed, so that its record says how far it went; the others wrote their ends."""
    stop_after(2)
    folder = train_tiny("evaluate.before=false", "evaluate.task=", "evaluate.general=").folder
    sessions = read_json(folder / "starts.json")["starts"]
    first = sessions[0] | {"seconds": 5000.0}
    stop_after(4)
    resume(folder, quiet_screen)
    second = read_json(folder / "starts.json")["starts"][1]
    recorded = read_record(record_path(folder))[0][-1]["elapsed_seconds"]
    killed = second | {"seconds": 700.0, "recorded_seconds": recorded - 40.0}
    write_json(folder / "starts.json", {"starts": [first, killed]})
    stop_after(None)

    result = resume(folder, quiet_screen).result

    assert result["resumed"] == 2
    assert result["started"] == first["started"]
    assert 5740.0 < result["elapsed_seconds"] < 5800.0
    assert sum(session["seconds"] for session in read_json(folder / "starts.json")["starts"]) == pytest.approx(
        result["elapsed_seconds"], abs=20
    )


def test_a_run_that_an_earlier_version_began_has_the_time_of_its_record(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    stop_after(2)
    folder = train_tiny("evaluate.before=false", "evaluate.task=", "evaluate.general=").folder
    recorded = read_record(record_path(folder))[0][-1]["elapsed_seconds"]
    (folder / "starts.json").write_text("{", encoding="utf-8")
    stop_after(None)

    result = resume(folder, quiet_screen).result

    assert result["resumed"] == 1
    assert result["elapsed_seconds"] > recorded
    assert "starts.json is damaged" in quiet_screen.console.file.getvalue()


def test_what_killed_processes_left_is_gone_once_a_run_goes_on(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    """Half-written folders and files have names that begin with a dot; nothing takes them for the whole thing."""
    stop_after(2)
    folder = train_tiny("evaluate.before=false").folder
    for name in (".adapter-x1y2", ".model-x1y2", "checkpoints/.step-000003-x1y2", "checkpoints/.best-000002-x1y2"):
        (folder / name).mkdir()
        (folder / name / "masters.safetensors").write_bytes(b"half")
    for name in (".result.json", ".record.jsonl", ".inputs.json", ".stopped.json"):
        (folder / name).write_text("{", encoding="utf-8")
    stop_after(None)

    finished = resume(folder, quiet_screen)

    assert finished.result["steps"] == 12
    assert [path.name for path in folder.rglob(".*")] == []


def test_a_run_killed_after_it_ended_early_takes_no_step_more(
    train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Early stop had ended it, and the kill came before its result was written."""
    monkeypatch.setattr(Checkpoints, "forget_best", lambda _self: None)
    finished = train_tiny(
        "model.method=full",
        "train.epochs=100",
        "train.learning_rate=0.02",
        "train.evaluate_every=4",
        "train.early_stopping_patience=1",
        "evaluate.before=false",
        "evaluate.task=",
        "evaluate.general=",
    )
    assert finished.ended == "early_stop"
    steps, _ = record_of(finished.folder)
    (finished.folder / "result.json").unlink()

    again = resume(finished.folder, quiet_screen)

    assert again.ended == "early_stop"
    assert record_of(finished.folder)[0] == steps


def test_a_run_whose_model_could_not_be_saved_can_be_finished(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen, tmp_path: Path
) -> None:
    """What the error advises: free some space, then resume."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_trained", full)
        with pytest.raises(OSError, match="No space"):
            train_tiny()
    folder = tmp_path / "home" / "runs" / "tiny"
    assert not (folder / "result.json").exists(), "it would mark the run as finished"
    assert not (folder / "after.json").exists(), "weights are saved before they are measured"

    finished = resume(folder, quiet_screen)

    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    written = json.loads((folder / "after.json").read_text(encoding="utf-8"))
    assert finished.result["after"] == written["measures"]
    assert finished.result["steps"] == 12


def test_resuming_a_finished_run_does_no_harm(train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any) -> None:
    finished = train_tiny("evaluate.task=")
    adapter = finished.folder / "adapter" / "adapter_model.safetensors"
    before, record = adapter.read_bytes(), record_of(finished.folder)

    with pytest.raises(CheckpointError, match="finished"):
        resume(finished.folder, quiet_screen)

    assert adapter.read_bytes() == before
    assert record_of(finished.folder) == record


def test_another_machine_is_said_and_remembered(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    stop_after(2)
    folder = train_tiny("evaluate.before=false").folder
    inputs = read_inputs(folder)
    assert set(inputs["machine"]) >= {"device", "processor", "instructions", "threads"}
    inputs["machine"]["processor"] = "An abacus"
    inputs["versions"]["torch"] = "1.0"
    write_inputs(folder, inputs)
    stop_after(None)

    resume(folder, quiet_screen)

    told = quiet_screen.console.file.getvalue()
    assert "may differ from here on, as processor: An abacus then, " in told
    assert "may differ from here on, as torch: 1.0 then, " in told
    (session,) = read_inputs(folder)["earlier_sessions"]
    assert session["machine"]["processor"] == "An abacus"
