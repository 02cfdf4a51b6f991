"""A stop changes nothing either where optimizers, noise, dropout, averages or sampling weights are chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tutelage import config
from tutelage.distributed import strategy as strategy_module
from tutelage.report.console.progress import Screen
from tutelage.train import run as run_module
from tutelage.train.run import run
from tutelage.types import PackedSequence

CHOICES = {
    "muon in bf16": ["train.optimizer=muon", "model.precision=bf16", "model.method=full", "train.learning_rate=1e-3"],
    "adafactor": ["train.optimizer=adafactor", "model.method=full", "train.learning_rate=1e-3"],
    "adamw_8bit": ["train.optimizer=adamw_8bit", "model.method=full", "train.learning_rate=1e-3"],
    "dropout, noise and an average": [
        "train.residual_dropout=0.3",
        "train.neftune_alpha=5",
        "train.ema_decay=0.9",
        "lora.dropout=0.1",
    ],
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(
    train_tiny: Callable[..., Any],
    record_of: Any,
    quiet_screen: Screen,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
) -> None:
    if "8bit" in choice and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("the package bitsandbytes is not installed")
    chosen = [*CHOICES[choice], "train.epochs=2", "train.evaluate_every=2", "evaluate.task=", "evaluate.general="]
    whole = train_tiny(*chosen, where="whole")

    @contextmanager
    def after_three(_say: Any) -> Iterator[Callable[[], bool]]:
        looks = iter([False, False])
        yield lambda: next(looks, True)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "stop_requests", after_three)
        stopped = train_tiny(*chosen, where="stopped")
    assert stopped.ended == "interrupted"
    torch.manual_seed(12345)  # what draws next must come from the checkpoint
    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    steps, heldout = record_of(resumed.folder)
    expected, expected_heldout = record_of(whole.folder)
    assert sorted(steps) == sorted(expected) == list(range(1, 7))
    for key in ("loss", "gradient_norm", "learning_rate", "tokens"):
        assert [steps[step][key] for step in sorted(steps)] == [expected[step][key] for step in sorted(expected)]
    assert heldout == expected_heldout
    for name in ("masters.safetensors", "moments.safetensors"):
        one, other = (load_file(run.folder / "checkpoints" / "step-000006" / name) for run in (whole, resumed))
        assert set(one) == set(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("drawn", "shares"),
    [("", True), ("lora.dropout=0.1", False), ("train.residual_dropout=0.1", False), ("train.neftune_alpha=5", False)],
)
def test_no_beginning_is_shared_where_something_is_drawn(
    train_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, drawn: str, shares: bool
) -> None:
    """All tiny rows have one system prompt."""
    shared: list[bool] = []
    row_loss = strategy_module.row_loss

    def noting(model: Any, row: PackedSequence, **named: Any) -> tuple[torch.Tensor, int]:
        shared.append(bool(row.parents) and torch.is_grad_enabled())  # held-out rows draw nothing
        return row_loss(model, row, **named)

    monkeypatch.setattr(strategy_module, "row_loss", noting)
    chosen = ["train.max_steps=1", "evaluate.task=", "evaluate.general=", "evaluate.before=false"]
    train_tiny(*chosen, *([drawn] if drawn else []))

    assert any(shared) == shares
