"""Runs whose tokens are weighted: what they record, and that they resume and repeat to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

from tests.train.test_replay import QUICK, TrainTiny
from tutelage import config
from tutelage.report.console.progress import Screen
from tutelage.train.checkpoint import Progress
from tutelage.train.loop import _remembered
from tutelage.train.loss_spike import SpikeGuard
from tutelage.train.replay import replay
from tutelage.train.run import run

SHORT = ("evaluate.before=false", "evaluate.task=", "evaluate.general=", "train.epochs=2.0", "train.learning_rate=1e-3")


@pytest.mark.parametrize("loss", ["dft", "talr", "eaft"])
def test_the_first_loss_is_the_plain_one_and_then_the_runs_part(
    train_tiny: TrainTiny, record_of: Any, loss: str
) -> None:
    plain, _ = record_of(train_tiny(*SHORT, where="plain").folder)

    steps, heldout = record_of(train_tiny(*SHORT, f"train.loss={loss}", where=loss).folder)

    assert steps[1]["loss"] == plain[1]["loss"]
    assert steps[1]["gradient_norm"] < plain[1]["gradient_norm"]
    assert steps[6]["loss"] != plain[6]["loss"]
    assert heldout[6] < steps[1]["loss"]


def test_a_resumed_talr_run_remembers_its_temperature(
    train_tiny: TrainTiny,
    record_of: Any,
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
) -> None:
    whole = train_tiny(*SHORT, "train.loss=talr", where="whole")
    stop_after(4)
    stopped = train_tiny(*SHORT, "train.loss=talr", where="stopped")
    stop_after(None)

    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    expected, found = record_of(whole.folder)[0], record_of(resumed.folder)[0]
    assert [found[step]["gradient_norm"] for step in range(1, 7)] == [
        expected[step]["gradient_norm"] for step in range(1, 7)
    ]
    name = "adapter/adapter_model.safetensors"
    weights, others = load_file(whole.folder / name), load_file(resumed.folder / name)
    assert all(equal(weights[key], others[key]) for key in weights)


def test_a_talr_run_is_repeated(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    folder = train_tiny(*QUICK, "train.loss=talr", "model.precision=bf16").folder

    found = replay(str(folder), quiet_screen)

    assert (found.difference, found.steps) == (None, 6)


def test_only_what_is_looked_back_at_is_remembered() -> None:
    before = Progress(recent_losses=(3.0, 2.0))

    assert _remembered(1.0, before, None, "cross_entropy") == ()
    assert _remembered(1.0, before, None, "eaft") == ()
    assert _remembered(1.0, before, None, "talr") == (1.0,)
    assert _remembered(1.0, before, SpikeGuard(2.0, 2), "talr") == (2.0, 1.0)
