"""The moving average of the weights: what it is, that it is what is measured and kept, and that it survives a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tutelage.model.precision import cast_model
from tutelage.optim.ema import WeightAverage
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.train.checkpoint import Checkpoints, Progress

Maker = Callable[..., Any]


def averaging(model: torch.nn.Module, *, shared: bool) -> MasterWeights:
    build = adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8)
    masters = MasterWeights(model, build=build, shared=shared, average_decay=0.9)
    if not shared:
        cast_model(model, "bf16")
    return masters


def go(model: torch.nn.Module, masters: MasterWeights, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        model(inputs.to(next(model.parameters()).dtype)).square().sum().backward()
        masters.step(0.05, max_grad_norm=1.0)


def test_it_follows_with_its_decay_and_faster_at_first() -> None:
    weights = {"w": torch.tensor([1.0, -2.0])}
    average = WeightAverage(weights, decay=0.5)
    expected = weights["w"].clone()
    for step in range(12):
        weights["w"] += step + 1
        average.follow(weights)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights["w"]
        torch.testing.assert_close(average.weights["w"], expected)
    assert average.updates == 12
    assert min(0.5, 11 / 20) == 0.5, "the last steps went by the decay itself"


@pytest.mark.parametrize("shared", [True, False])
def test_the_model_is_the_average_inside_the_block_and_itself_after(small_network: Maker, shared: bool) -> None:
    model = small_network()
    masters = averaging(model, shared=shared)
    go(model, masters, range(4))
    weights = {name: one.detach().clone() for name, one in model.named_parameters()}
    average = {name: one.clone() for name, one in masters.output_weights.items()}
    held = {name: one.clone() for name, one in masters.masters.items()}
    assert any(not torch.equal(one, held[name]) for name, one in average.items())

    def measure() -> None:
        with masters.using_average():
            assert all(torch.equal(one, average[name].to(one.dtype)) for name, one in model.named_parameters())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        measure()

    assert all(torch.equal(one, weights[name]) for name, one in model.named_parameters())
    assert all(torch.equal(one, average[name]) for name, one in masters.output_weights.items())
    assert all(torch.equal(one, held[name]) for name, one in masters.masters.items())


@pytest.mark.parametrize("shared", [True, False])
def test_a_resume_and_a_measurement_change_nothing(small_network: Maker, tmp_path: Path, shared: bool) -> None:
    whole, first, second = small_network(), small_network(), small_network(seed=1)
    reference, one, other = (averaging(model, shared=shared) for model in (whole, first, second))
    go(whole, reference, range(6))

    go(first, one, range(3))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(one, Progress(3))
    checkpoints.restore_newest(other)
    with other.using_average():
        pass
    go(second, other, range(3, 6))

    assert all(torch.equal(value, other.state()[key]) for key, value in reference.state().items())
    assert all(torch.equal(value, other.masters[key]) for key, value in reference.masters.items())
    assert all(torch.equal(value, other.output_weights[key]) for key, value in reference.output_weights.items())


def test_the_average_is_kept_as_the_best_and_in_the_end(small_network: Maker, tmp_path: Path) -> None:
    model = small_network()
    masters = averaging(model, shared=True)
    go(model, masters, range(3))
    average = {name: one.clone() for name, one in masters.output_weights.items()}
    Checkpoints(tmp_path, keep=1).save_best(masters, Progress(3))
    saved = load_file(tmp_path / "best-000003" / "masters.safetensors")
    assert all(torch.equal(one, saved[name]) for name, one in average.items())

    masters.adopt_average()

    assert all(torch.equal(one, average[name]) for name, one in masters.masters.items())
    assert all(torch.equal(one, average[name]) for name, one in model.named_parameters())


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.nightly)])
def test_a_run_measures_and_saves_the_average(train_tiny: Maker, record_of: Any, method: str) -> None:
    """The last held-out loss is that of the saved weights, and they are the average of the last checkpoint."""
    rate = "3e-3" if method == "full" else "1e-2"
    chosen = [f"model.method={method}", f"train.learning_rate={rate}", "evaluate.task=", "evaluate.general="]
    finished = train_tiny(*chosen, "train.ema_decay=0.8", where="averaged")
    plain = train_tiny(*chosen, where="plain")

    losses, heldout = record_of(finished.folder)
    expected, others = record_of(plain.folder)
    assert [loss["loss"] for loss in losses.values()] == [one["loss"] for one in expected.values()]
    assert heldout != others
    last = max(heldout)
    assert finished.result["best_step"] == last, "the average falls steadily"
    assert finished.result["after"]["heldout_loss"] == pytest.approx(heldout[last], abs=1e-6)
    state = load_file(finished.folder / "checkpoints" / f"step-{last:06d}" / "moments.safetensors")
    name = "model/model.safetensors" if method == "full" else "adapter/adapter_model.safetensors"
    saved = load_file(finished.folder / name)
    averages = {key.removeprefix("average:"): one for key, one in state.items() if key.startswith("average:")}
    assert int(averages.pop("updates")) == last
    assert len(averages) >= len(saved)
    for key, one in saved.items():
        assert torch.equal(averages[key.replace(".weight", ".default.weight") if method == "lora" else key], one)
