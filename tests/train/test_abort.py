"""Steps that are not taken: what is kept, what is written down, and how a run goes on without one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tutelage import config
from tutelage.distributed import strategy as strategy_module
from tutelage.errors import CheckpointError, TrainingError
from tutelage.optim.master_weights import MasterWeights
from tutelage.report.console.progress import Screen
from tutelage.train.loss_spike import SpikeGuard
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
QUICK = ("evaluate.before=false", "evaluate.task=", "evaluate.general=")
GUARD = ("train.spike_factor=3.0", "train.spike_window=2", "train.batch_size=4", "train.epochs=2.0")


def stopped(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stopped.json").read_text(encoding="utf-8"))


def heavy_row(home: Path, line: int, weight: float) -> None:
    """Give the reply of one training row a weight that its loss is multiplied by."""
    path = home / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[line - 1]["messages"][-1]["weight"] = weight
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_guard_waits_until_its_window_is_full() -> None:
    guard = SpikeGuard(2.0, 3)
    assert not guard.is_spike(9.0, ())
    assert not guard.is_spike(9.0, (1.0, 1.0))
    assert guard.is_spike(9.0, (1.0, 1.0, 4.0)), "the median, not the mean"
    assert not guard.is_spike(2.0, (1.0, 1.0, 1.0)), "only beyond the factor"
    assert not guard.is_spike(math.nan, (1.0, 1.0, 1.0)), "what is not finite is no spike"
    assert guard.remembered(5.0, (1.0, 2.0, 3.0)) == (2.0, 3.0, 5.0)


@pytest.fixture
def spiked(train_tiny: TrainTiny, tiny_recipe: Any, tmp_path: Path) -> Path:
    """A run that a spike has stopped: the last of six steps of an epoch holds the row of line 1, or an earlier one."""
    tiny_recipe(tmp_path / "home")
    heavy_row(tmp_path / "home", 1, 50.0)
    with pytest.raises(TrainingError, match="is a loss spike; the run stops before it"):
        train_tiny(*QUICK, *GUARD, "lora.dropout=0.1")
    return tmp_path / "home" / "runs" / "tiny"


def test_a_spike_stops_the_run_before_the_step(spiked: Path, record_of: Any) -> None:
    told = stopped(spiked)
    steps, _ = record_of(spiked)
    last = max(steps)

    assert told["reason"] == "loss_spike"
    assert told["step"] == last + 1, "the step is not taken, and not recorded"
    assert told["loss"] > 3.0 * told["median_loss"]
    assert told["checkpoint"] == f"step-{last:06d}"
    assert (spiked / "checkpoints" / told["checkpoint"] / "state.json").is_file()
    addresses = [one for row in told["rows"] for one in row["addresses"]]
    assert len(addresses) == 4
    assert any(address.endswith("train.jsonl:1") for address in addresses)
    worst = max(told["rows"], key=lambda row: row["loss"])
    assert any(one.endswith("train.jsonl:1") for one in worst["addresses"])
    assert not (spiked / "result.json").exists()


def test_resuming_alone_stops_at_the_same_step_with_the_same_bits(spiked: Path, quiet_screen: Screen) -> None:
    """The spiked step drew dropout before it was given up; the state that was saved is the one before."""
    before = stopped(spiked)
    with pytest.raises(TrainingError, match="is a loss spike"):
        run(config.load(spiked / "settings.toml"), quiet_screen, resume=True)
    assert stopped(spiked) == before


def test_the_step_can_be_left_out(spiked: Path, quiet_screen: Screen, record_of: Any) -> None:
    left_out = stopped(spiked)["step"]
    settings = config.load(spiked / "settings.toml")
    skipped = [left_out]
    for _ in range(3):  # the same row comes again in the second epoch
        try:
            finished = run(settings, quiet_screen, resume=True, skip_step=True)
            break
        except TrainingError:
            skipped.append(stopped(spiked)["step"])

    assert finished.ended == "finished"
    steps, _ = record_of(spiked)
    assert sorted({*range(1, 13)} - set(steps)) == skipped
    assert json.loads((spiked / "inputs.json").read_text(encoding="utf-8"))["skipped_steps"] == skipped
    assert not (spiked / "stopped.json").exists()


def test_without_a_stopped_step_nothing_is_left_out(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    finished = train_tiny(*QUICK, "train.max_steps=2")
    (finished.folder / "result.json").unlink()

    with pytest.raises(CheckpointError, match="no step to leave out"):
        run(config.load(finished.folder / "settings.toml"), quiet_screen, resume=True, skip_step=True)


def test_a_step_that_is_not_finite_leaves_the_last_good_state(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen, record_of: Any, tmp_path: Path
) -> None:
    """Saved although no checkpoint was due, and it resumes to the run that nothing ever happened to."""
    chosen = (*QUICK, "train.max_steps=8", "lora.dropout=0.1")
    whole = train_tiny(*chosen, where="whole")
    row_loss, calls = strategy_module.row_loss, []

    def broken(model: Any, row: Any, **named: Any) -> tuple[torch.Tensor, int]:
        total, count = row_loss(model, row, **named)
        if not torch.is_grad_enabled():  # a held-out row
            return total, count
        calls.append(row)
        return (total * math.nan if len(calls) == 12 else total), count

    with monkeypatch.context() as patch:
        patch.setattr(strategy_module, "row_loss", broken)
        with pytest.raises(TrainingError, match="is not finite"):
            train_tiny(*chosen)
    folder = tmp_path / "home" / "runs" / "tiny"
    told = stopped(folder)
    assert told["reason"] == "not_finite"
    assert told["loss"] is None
    assert [row["loss"] is None for row in told["rows"]].count(True) == 1
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == [f"step-{told['step'] - 1:06d}"]

    run(config.load(folder / "settings.toml"), quiet_screen, resume=True)

    found, expected = (record_of(one)[0] for one in (folder, whole.folder))
    assert {step: line["loss"] for step, line in found.items()} == {
        step: line["loss"] for step, line in expected.items()
    }
    assert not (folder / "stopped.json").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_b13_a_base_that_holds_nan_is_named_as_such(
    train_tiny: TrainTiny, tiny_model_folder: Path, tmp_path: Path, method: str
) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(tiny_model_folder, spoiled)
    weights = load_file(spoiled / "model.safetensors")
    name = next(weight for weight in weights if weight.endswith("mlp.up_proj.weight"))
    weights[name][0, 0] = math.nan
    save_file(weights, spoiled / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(TrainingError, match="model to start from holds weights that are not finite") as caught:
        train_tiny(*QUICK, f"model.name={spoiled}", f"model.method={method}")

    assert "mlp.up_proj" in str(caught.value.found)
    assert "learning_rate" not in str(caught.value.fix)


@pytest.mark.parametrize("steps", [1, 3])
def test_b13_the_last_good_state_stays_when_weights_become_infinite(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The step itself is finite, what it makes of the weights is not, and there may be no step after it."""
    step, taken = MasterWeights.step, []

    def spoiling(self: MasterWeights, *given: Any, **named: Any) -> float:
        norm = step(self, *given, **named)
        taken.append(norm)
        if len(taken) == steps:
            next(iter(self.masters.values())).data.fill_(math.inf)
        return norm

    monkeypatch.setattr(MasterWeights, "step", spoiling)
    with pytest.raises(TrainingError, match="no longer finite"):
        train_tiny(*QUICK, f"train.max_steps={steps}", "train.checkpoint_every=1", "train.keep_checkpoints=1")

    folder = tmp_path / "home" / "runs" / "tiny"
    kept = sorted(path.name for path in folder.glob("checkpoints/step-*"))
    assert kept == [f"step-{index:06d}" for index in range(max(1, steps - 1), steps)]
    assert not (folder / "adapter").exists()
    assert not (folder / "model").exists()


def test_no_checkpoint_is_thinned_out_at_such_an_end(train_tiny: TrainTiny, tiny_recipe: Any, tmp_path: Path) -> None:
    """What came before may be what the user wants to go back to."""
    tiny_recipe(tmp_path / "home")
    heavy_row(tmp_path / "home", 1, 50.0)
    with pytest.raises(TrainingError):
        train_tiny(*QUICK, *GUARD, "train.checkpoint_every=2", "train.keep_checkpoints=1")

    folder = tmp_path / "home" / "runs" / "tiny"
    last = stopped(folder)["step"] - 1
    due = last - last % 2
    kept = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    assert kept == sorted({f"step-{one:06d}" for one in (due, last) if one > 0})
