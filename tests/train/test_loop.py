"""The loop with small parts: early stop, stop requests, what is not finite, when it measures and saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.errors import SaveError, TrainingError
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.runs.metrics_log import HeldoutRecord, Recorder, StepRecord, read_record
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.listener import Listener
from tutelage.train.loop import Cadence, Outcome, Parts, train
from tutelage.types import Address, Batch, PackedSequence

Maker = Callable[..., Any]


class Bench:
    """A loop over a small network: each row is a number, and the loss is the summed square of the outputs."""

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=3)
        self.record = folder / "record.jsonl"
        self.seen: list[StepRecord | HeldoutRecord] = []
        self.modes: list[bool] = []

    def row_loss(self, model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        self.modes.append(model.training)
        inputs = torch.from_numpy(row.ids).float()[None] / 10
        return model(inputs).square().sum() * len(row.ids), len(row.ids)

    def batches(self, steps: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, steps):
            rows = tuple(a_row(step, part) for part in range(2))
            yield Batch(step, step / 4, rows, trained_tokens=12, examples=2)

    def train(
        self,
        steps: int,
        *,
        asked_to_stop: Callable[[], bool] = lambda: False,
        cadence: Mapping[str, int] = MappingProxyType({}),
        **changes: Any,
    ) -> Outcome:
        progress = changes.pop("progress", Progress())
        start = progress.steps_done
        given: dict[str, Any] = {
            "row_loss": self.row_loss,
            "optimizer": self.optimizer,
            "schedule": LRSchedule(kind="constant", peak=0.01, steps=steps, warmup_steps=0),
            "max_grad_norm": 1.0,
            "heldout": None,
            "cadence": Cadence(**({"evaluate_every": 2} | cadence)),
            "checkpoints": self.checkpoints,
            "listener": Listener(Recorder(self.record, from_step=start), self.seen.append, asked_to_stop),
        } | changes
        return train(Parts(model=self.model, **given), self.batches(steps, start), progress)

    def saved(self) -> list[str]:
        return sorted(path.name for path in self.checkpoints.folder.iterdir())

    def lines(self) -> list[dict[str, Any]]:
        return read_record(self.record)[0]


def a_row(step: int, part: int) -> PackedSequence:
    ids = np.arange(step, step + 6, dtype=np.int32)
    ones = np.ones(6, dtype=np.float32)
    return PackedSequence(ids, ones, ids, (6,), (Address("data.jsonl", 10 * step + part),))


def falling_then(*values: float) -> Callable[[], float]:
    given = iter(values)
    return lambda: next(given)


@pytest.fixture
def bench(tmp_path: Path, small_network: Maker, master_adamw: Maker) -> Bench:
    model = small_network()
    return Bench(tmp_path, model, master_adamw(model))


def test_every_step_is_recorded_and_watched(bench: Bench) -> None:
    outcome = bench.train(5)

    assert outcome.ended == "finished"
    assert outcome.progress == Progress(5, tokens=60, trained_tokens=60)
    lines = bench.lines()
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert {key for line in lines for key in line} == {
        "step", "epoch", "loss", "learning_rate", "gradient_norm", "tokens", "trained_tokens", "tokens_per_second",
        "elapsed_seconds", "peak_bytes",
    }  # fmt: skip
    assert [one.step for one in bench.seen] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in lines] == [one.loss for one in bench.seen if isinstance(one, StepRecord)]
    elapsed = [line["elapsed_seconds"] for line in lines]
    assert elapsed == sorted(elapsed)
    assert all(line["tokens_per_second"] > 0 and line["peak_bytes"] > 10**7 for line in lines)
    assert bench.saved() == ["step-000005"]


def test_the_sum_is_divided_once_by_the_count(bench: Bench) -> None:
    expected = sum(bench.row_loss(bench.model, a_row(0, part))[0].item() for part in range(2)) / 12

    bench.train(1)

    assert bench.lines()[0]["loss"] == pytest.approx(expected)


def test_a_step_may_follow_the_sum_and_records_the_mean(
    bench: Bench, tmp_path: Path, small_network: Maker, master_adamw: Maker
) -> None:
    """The gradient is as many times longer as tokens are trained (Tulu 3: --reduce_loss sum)."""
    bench.train(1, max_grad_norm=1e9)
    model = small_network()
    (tmp_path / "summing").mkdir()
    summing = Bench(tmp_path / "summing", model, master_adamw(model))
    summing.train(1, max_grad_norm=1e9, sums_loss=True)

    mean, summed = bench.lines()[0], summing.lines()[0]
    assert summed["loss"] == pytest.approx(mean["loss"])
    assert summed["gradient_norm"] == pytest.approx(12 * mean["gradient_norm"], rel=1e-5)


def test_checkpoints_and_measurements_come_when_due(bench: Bench) -> None:
    outcome = bench.train(
        7, heldout=falling_then(3.0, 2.0, 2.5, 2.6), cadence={"evaluate_every": 2, "checkpoint_every": 3}
    )

    measured = [one.step for one in bench.seen if isinstance(one, HeldoutRecord)]
    assert measured == [2, 4, 6, 7], "the last step is always measured"
    saved = bench.saved()
    assert saved[2:] == ["step-000003", "step-000006", "step-000007"]
    assert saved[:2] == ["best-000002", "best-000004"], "step 3 counts on best 2"
    assert outcome.progress.best_step == 4
    assert outcome.progress.evaluations_since_best == 2


def test_training_mode_comes_back_after_a_measurement(bench: Bench) -> None:
    def measure() -> float:
        bench.model.eval()
        return 1.0

    bench.train(4, heldout=measure, cadence={"evaluate_every": 1})

    assert bench.modes == [True] * 8


def test_early_stop_keeps_the_best_weights(bench: Bench) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    values = iter((3.0, 2.0, 2.1, 2.0, 9.0))

    def measure() -> float:
        weights.append({name: one.detach().clone() for name, one in bench.model.named_parameters()})
        return next(values)

    outcome = bench.train(20, heldout=measure, cadence={"evaluate_every": 2, "patience": 2})

    assert outcome.ended == "early_stop"
    assert outcome.progress.steps_done == 8, "best at 4, then two measurements without improvement; equal is none"
    bench.checkpoints.restore_best(bench.optimizer, step=4)
    for name, one in bench.model.named_parameters():
        assert torch.equal(one, weights[1][name])
    assert "step-000008" in bench.saved()


def test_a_measurement_that_is_not_finite_is_never_the_best(bench: Bench) -> None:
    outcome = bench.train(
        6, heldout=falling_then(math.nan, 2.0, math.nan), cadence={"evaluate_every": 2, "patience": 5}
    )

    assert outcome.progress.best_step == 4
    assert [line["heldout_loss"] for line in bench.lines() if "heldout_loss" in line] == [None, 2.0, None]


def stops_after(steps: int) -> Callable[[], bool]:
    asked = iter([False] * (steps - 1) + [True] * 100)
    return lambda: next(asked)


def test_a_stop_request_finishes_the_step_and_saves(bench: Bench) -> None:
    outcome = bench.train(9, asked_to_stop=stops_after(3))

    assert (outcome.ended, outcome.progress.steps_done) == ("interrupted", 3)
    assert bench.saved() == ["step-000003"]


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_stopping_and_going_on_changes_nothing(
    tmp_path: Path, small_network: Maker, master_adamw: Maker, at: int
) -> None:
    """Losses, weights and measurements; `at` falls on measured steps, others, and the last one."""

    def fresh(name: str) -> Bench:
        model = small_network()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Bench(folder, model, master_adamw(model))

    def measuring(bench: Bench) -> Callable[[], float]:
        return lambda: float(bench.model(torch.ones(1, 6)).detach().square().sum())

    whole = fresh("whole")
    expected = whole.train(6, heldout=measuring(whole))

    first = fresh("stopped")
    first.train(6, heldout=measuring(first), asked_to_stop=stops_after(at))
    second = fresh("stopped")
    progress = second.checkpoints.restore_newest(second.optimizer)
    found = second.train(6, heldout=measuring(second), progress=progress)

    def timeless(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        changing = ("elapsed_seconds", "tokens_per_second", "peak_bytes")
        return [{key: value for key, value in line.items() if key not in changing} for line in lines]

    assert progress.steps_done == at
    assert found.ended == "finished"
    for name, master in whole.optimizer.masters.items():
        assert torch.equal(master, second.optimizer.masters[name])
    assert timeless(second.lines()) == timeless(whole.lines())
    assert found.progress == expected.progress


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_with_addresses(bench: Bench, bad: float) -> None:
    weights: dict[str, torch.Tensor] = {}

    def row_loss(model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        total, count = bench.row_loss(model, row)
        if row.addresses[0].number == 21:  # the second row of the third step
            weights.update({name: one.detach().clone() for name, one in model.named_parameters()})
            total = total * bad
        return total, count

    with pytest.raises(TrainingError, match="Step 3 is not finite") as caught:
        bench.train(9, row_loss=row_loss, cadence={"checkpoint_every": 1})

    assert caught.value.where == "data.jsonl:20, data.jsonl:21"
    assert str(bad) in str(caught.value.found)
    assert all(torch.equal(one, weights[name]) for name, one in bench.model.named_parameters())
    assert bench.saved() == ["step-000001", "step-000002"]
    assert [line["step"] for line in bench.lines()] == [1, 2]


def test_a_gradient_that_is_not_finite_stops_the_run(bench: Bench) -> None:
    def row_loss(model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        total, count = bench.row_loss(model, row)
        return total + (model[0].bias - model[0].bias.detach()).sum().sqrt(), count  # 0, with an infinite slope

    with pytest.raises(TrainingError, match=r"gradient norm (inf|nan)"):
        bench.train(3, row_loss=row_loss)


def test_many_addresses_are_counted_rather_than_listed(bench: Bench) -> None:
    row = a_row(0, 0)
    many = PackedSequence(row.ids, row.weights, row.positions, (6,), tuple(Address("a.jsonl", n) for n in range(1, 8)))
    batch = Batch(0, 0.0, (many,), trained_tokens=6, examples=7)
    bench.batches = lambda *_: iter([batch])

    with pytest.raises(TrainingError) as caught:
        bench.train(1, row_loss=lambda model, _row: (model(torch.ones(1, 6)).sum() * math.nan, 6))

    shown = "a.jsonl:1, a.jsonl:2, a.jsonl:3, a.jsonl:4 and 3 more rows, all in "
    assert caught.value.where == shown + str(bench.record.parent / "stopped.json")


def test_a_checkpoint_that_cannot_be_saved_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.train import checkpoint

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    bench.train(2)
    monkeypatch.setattr(checkpoint, "save_file", full)

    with pytest.raises(SaveError):
        bench.train(4, progress=Progress(2))

    assert bench.saved() == ["step-000002"]


def test_a_record_that_cannot_be_written_is_a_save_error(bench: Bench, files_at_most: Callable[[int], Any]) -> None:
    with files_at_most(600), pytest.raises(SaveError):
        bench.train(9)


def test_a_record_that_cannot_be_started_keeps_the_old_one(bench: Bench, files_at_most: Callable[[int], Any]) -> None:
    """A resume drops the lines it will write again; a full disk must not cost the others."""
    bench.train(3)
    before = bench.record.read_bytes()

    with files_at_most(100), pytest.raises(SaveError):
        Recorder(bench.record, from_step=2)

    assert bench.record.read_bytes() == before
