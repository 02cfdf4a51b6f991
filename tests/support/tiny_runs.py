"""A small regression task for optimizer and loop, and whole runs of the tiny model."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tutelage import config
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.report.console.progress import Screen
from tutelage.runs.metrics_log import read_record
from tutelage.train import run as run_module
from tutelage.train.run import Finished, run

torch.set_num_threads(1)


@pytest.fixture
def quiet_screen() -> Screen:
    """A screen that nobody sees; its console keeps the text."""
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def small_network() -> Callable[..., torch.nn.Module]:
    """A maker of equal two-layer networks with biases and a norm."""

    def make(seed: int = 0) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

    return make


@pytest.fixture
def master_adamw() -> Callable[..., MasterWeights]:
    """A maker of optimizers with usual settings."""

    def make(model: torch.nn.Module, *, weight_decay: float = 0.0, shared: bool = False) -> MasterWeights:
        return MasterWeights(
            model, build=adamw(weight_decay=weight_decay, betas=(0.9, 0.999), epsilon=1e-8), shared=shared
        )

    return make


@pytest.fixture
def train_tiny(tiny_recipe: Callable[[Path], Path], quiet_screen: Screen, tmp_path: Path) -> Callable[..., Finished]:
    """Runs the tiny recipe with overrides: `train_tiny("train.epochs=1", where="a", resume=False)`."""

    def go(*overrides: str, where: str = "home", resume: bool = False) -> Finished:
        folder = tmp_path / where
        recipe = folder / "recipe.toml" if (folder / "recipe.toml").is_file() else tiny_recipe(folder)
        return run(config.load(recipe, overrides), quiet_screen, resume=resume)

    return go


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Makes later runs ask to stop after a number of steps; None lets them run."""
    original = run_module.stop_requests

    def arrange(steps: int | None) -> None:
        @contextmanager
        def asking(_say: Any) -> Iterator[Callable[[], bool]]:
            looks = iter([False] * ((steps or 1) - 1))
            yield lambda: next(looks, True)

        monkeypatch.setattr(run_module, "stop_requests", original if steps is None else asking)

    return arrange


@pytest.fixture
def record_of() -> Callable[[Path], tuple[dict[int, dict[str, Any]], dict[int, float]]]:
    """Reads record.jsonl: step lines by step, and held-out losses by step."""

    def read(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[int, float]]:
        lines, damaged = read_record(folder / "record.jsonl")
        assert damaged == []
        steps = {line["step"]: line for line in lines if "loss" in line}
        heldout = {line["step"]: line["heldout_loss"] for line in lines if "heldout_loss" in line}
        assert len(steps) + len(heldout) == len(lines)
        return steps, heldout

    return read


@pytest.fixture
def files_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which the system itself refuses to let any file grow beyond a size, as a full disk does."""

    @contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def proof_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are compared in this process, as a fresh one takes seconds to import what is imported here."""
    from tutelage.export import fresh_process, proof

    def answer(request: Path, _asked: object, _done: object) -> None:
        monkeypatch.setattr("sys.argv", ["fresh_process.py", str(request)])
        with redirect_stdout(io.StringIO()):  # its lines go to the process that waits for it
            fresh_process.main()

    monkeypatch.setattr(proof, "_run", answer)
