"""Memory runs out: the step starts again with smaller rows, and nothing but rounding changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.one_step import Keeping, NoCheckpoints
from tutelage.errors import FitError, TrainingError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack import Sampler, batches
from tutelage.report.console.progress import Screen
from tutelage.runs.metrics_log import Recorder, RowsRecord, StepRecord
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.listener import Listener
from tutelage.train.loop import Cadence, Outcome, Parts, train
from tutelage.types import Address, Example, PackedSequence, Turn

RowLoss = Callable[[Any, PackedSequence], tuple[torch.Tensor, int]]
STEPS = 6


def fits(largest: int, *, at: str = "forward") -> RowLoss:
    """The loss of a machine whose memory ends at rows of `largest` tokens.

    Args:
        largest: tokens of a row that fits.
        at: what fails; "later" lets the first row pass, and each that is a single document.
    """
    passed: list[PackedSequence] = []

    def exhausted(_slope: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 8 bytes")

    def limited(model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        alone = len(row.document_tokens) == 1
        if len(row.ids) <= largest or (at == "later" and (alone or not passed)):
            passed.append(row)
            return row_loss(model, row)
        if at == "backward":
            total, count = row_loss(model, row)
            total.register_hook(exhausted)
            return total, count
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    return limited


def documents() -> list[Example]:
    made = []
    for number in range(20):
        tokens = 6 + (number * 5) % 17
        weights = np.zeros(tokens, dtype=np.float32)
        weights[3:] = 1.0
        ids = (np.arange(tokens) * 7 + number * 13).astype(np.int32) % 400
        made.append(Example(Address("made", number), 0, ids, weights, (Turn(1, 3, tokens),)))
    return made


class Bench:
    """The tiny model in a loop with six steps of four documents."""

    def __init__(self, model: Any, folder: Path, build: Any) -> None:
        self.model, self.folder = model, folder
        use_packed_attention(model)
        self.optimizer = MasterWeights(model, build=build, shared=True)
        self.seen: list[Any] = []

    def train(self, loss: RowLoss, *, row_tokens: int = 96, steps: int = STEPS, **changes: Any) -> Outcome:
        order = Sampler(20, 4, 2.0, 3, max_steps=steps)
        progress = changes.get("progress", Progress())
        given: dict[str, Any] = {
            "row_loss": loss,
            "optimizer": self.optimizer,
            "schedule": LRSchedule(kind="constant", peak=0.01, steps=STEPS, warmup_steps=0),
            "max_grad_norm": 1.0,
            "heldout": None,
            "cadence": Cadence(1, checkpoint_every=1),
            "checkpoints": Checkpoints(self.folder / "checkpoints", keep=9),
            "listener": Listener(
                Recorder(self.folder / "record.jsonl", from_step=progress.steps_done), self.seen.append
            ),
        } | {name: value for name, value in changes.items() if name != "progress"}
        rows = batches(documents(), order, row_tokens=row_tokens, start_step=progress.steps_done)
        return train(Parts(model=self.model, **given), rows, progress)

    @property
    def losses(self) -> list[float]:
        return [one.loss for one in self.seen if isinstance(one, StepRecord)]

    @property
    def budgets(self) -> list[tuple[int, int]]:
        return [(one.step, one.row_tokens) for one in self.seen if isinstance(one, RowsRecord)]


@pytest.fixture
def bench(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., Bench]:
    from transformers import AutoModelForCausalLM

    def adamw_of(masters: Any) -> Any:
        return (torch.optim.AdamW(list(masters.values()), lr=0.0, weight_decay=0.0, fused=True),)

    def make(name: str, build: Any = adamw_of) -> Bench:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)
        (tmp_path / name).mkdir(exist_ok=True)
        return Bench(model, tmp_path / name, build)

    return make


def test_what_torch_raises_on_a_full_processor_is_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    with pytest.raises(MemoryError) as refused_by_numpy:
        np.zeros(1 << 60, dtype=np.uint8)
    assert is_out_of_memory(refused_by_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(
    "other",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("can't allocate"), FitError("too large")],
)
def test_other_errors_are_none_of_it(other: Exception) -> None:
    assert not is_out_of_memory(other)


@pytest.mark.parametrize("at", ["forward", "backward", "later"])
def test_smaller_rows_give_the_same_gradients(bench: Callable[..., Bench], at: str) -> None:
    """Also where the memory ends in a backward pass, or once another row has left its gradients."""
    whole, short = (bench(name, lambda masters: (Keeping(masters),)) for name in ("whole", "short"))
    largest, row_tokens = (12, 30) if at == "later" else (24, 40)
    for one, loss in ((whole, row_loss), (short, fits(largest, at=at))):
        one.train(loss, steps=1, row_tokens=row_tokens, checkpoints=NoCheckpoints(), max_grad_norm=1e9)

    assert short.budgets
    assert short.losses == pytest.approx(whole.losses, rel=1e-6)
    kept = [one.optimizer.optimizers[0].kept for one in (whole, short)]
    assert set(kept[0]) == set(kept[1])
    for name, gradient in kept[0].items():
        torch.testing.assert_close(kept[1][name], gradient, rtol=0.0, atol=1e-6)


def test_the_budget_is_halved_until_it_fits_and_stays(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench("short")

    outcome = one.train(fits(30))

    assert one.budgets[0][0] == 1
    steps, sizes = zip(*one.budgets, strict=True)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert outcome.progress.row_tokens == sizes[-1]
    assert all(step == 1 for step in steps), "a budget that fits once is never left again"
    assert outcome.progress.steps_done == STEPS
    told = [json.loads(line) for line in (tmp_path / "short" / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["row_tokens"]) for line in told if "row_tokens" in line] == one.budgets
    assert [line["step"] for line in told if "loss" in line] == list(range(1, STEPS + 1))


def test_a_resumed_run_keeps_the_lowered_budget_and_its_bits(bench: Callable[..., Bench]) -> None:
    whole = bench("whole")
    whole.train(fits(30))
    stopped = bench("stopped")
    stopped.train(fits(30), steps=3)
    resumed = bench("stopped")
    progress = Checkpoints(resumed.folder / "checkpoints", keep=9).restore_newest(resumed.optimizer)

    resumed.train(fits(30), progress=progress)

    assert progress.row_tokens is not None
    assert resumed.budgets == [], "it does not have to find out again"
    assert stopped.losses + resumed.losses == whole.losses
    for name, master in whole.optimizer.masters.items():
        assert torch.equal(master, resumed.optimizer.masters[name])


def test_one_document_that_does_not_fit_says_so(bench: Callable[..., Bench]) -> None:
    one = bench("short")
    before = {name: master.detach().clone() for name, master in one.optimizer.masters.items()}

    with pytest.raises(FitError, match="alone does not fit") as caught:
        one.train(fits(5), cadence=Cadence(1))

    assert str(caught.value.where).startswith("made:")
    assert "pack.max_seq_length" in str(caught.value.fix)
    assert all(torch.equal(master, before[name]) for name, master in one.optimizer.masters.items())
    told = json.loads((one.folder / "stopped.json").read_text(encoding="utf-8"))
    assert (told["reason"], told["step"], told["checkpoint"]) == ("out_of_memory", 1, "step-000000")
    assert told["rows"] == [{"addresses": [caught.value.where]}]
    assert "--skip-step" in str(caught.value.fix)


def test_another_error_ends_the_run_as_itself(bench: Callable[..., Bench]) -> None:
    def broken(_model: Any, _row: PackedSequence) -> tuple[torch.Tensor, int]:
        raise RuntimeError("expected all tensors to be on the same device")

    with pytest.raises(RuntimeError, match="same device"):
        bench("short").train(broken)


def test_the_screen_says_it(quiet_screen: Screen) -> None:
    with quiet_screen.training(10, 0) as watch:
        watch(RowsRecord(3, 512, 1.0))

    told = quiet_screen.console.file.getvalue().replace("\n", " ")
    assert "step 3: memory ran out" in told
    assert "at most 512 tokens" in told
    assert "pack.row_tokens=512" in told


def without_room(largest: int, refused: list[int]) -> RowLoss:
    """The loss of rows up to a length; for longer ones memory runs out, as a CPU says it."""

    def limited(model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        if len(row.ids) > largest:
            refused.append(len(row.ids))
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        return row_loss(model, row)

    return limited


def held_out() -> list[PackedSequence]:
    return [row for batch in batches(documents(), Sampler(20, 20, 1.0, 3), row_tokens=96) for row in batch.rows]


def test_b12_the_held_out_loss_takes_smaller_rows(bench: Callable[..., Bench]) -> None:
    model = bench("a").model
    whole = heldout_loss(model, held_out())
    refused: list[int] = []
    said: list[str] = []

    found = heldout_loss(model, held_out(), row_loss=without_room(30, refused), log=said.append)

    assert found == pytest.approx(whole, rel=1e-6)
    assert refused
    assert "Memory ran out in the held-out loss" in said[0]


def test_b12_one_held_out_document_that_does_not_fit_ends_the_run_saved(bench: Callable[..., Bench]) -> None:
    made = bench("a")

    def measure() -> float:
        return heldout_loss(made.model, held_out(), row_loss=without_room(10, []))

    with pytest.raises(FitError, match="held-out example alone") as caught:
        made.train(row_loss, steps=4, heldout=measure, cadence=Cadence(2))

    assert caught.value.found == "22 tokens in a row of its own"
    checkpoints = Checkpoints(made.folder / "checkpoints", keep=9)
    assert checkpoints.newest() == "step-000002"
    assert checkpoints.restore_newest(made.optimizer).steps_done == 2


def test_b12_another_failure_of_the_held_out_loss_is_saved_before(bench: Callable[..., Bench]) -> None:
    made = bench("a")

    def measure() -> float:
        raise IndexError("index out of range in self")

    with pytest.raises(TrainingError, match="could not be measured after step 3") as caught:
        made.train(row_loss, steps=4, heldout=measure, cadence=Cadence(3))

    assert caught.value.found == "index out of range in self"

    assert Checkpoints(made.folder / "checkpoints", keep=9).newest() == "step-000003"
