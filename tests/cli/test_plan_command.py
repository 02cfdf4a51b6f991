from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Ran
from tests.support.short_plans import LONG_ROWS
from tutelage.plan import plan


@pytest.fixture(autouse=True)
def short_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tokens than `LONG_ROWS` has: counting those in bf16 takes longer than all the rest."""
    monkeypatch.setattr(plan, "LONG_ROWS", LONG_ROWS)


def test_a_recipe_is_planned_with_its_tokens_and_steps(
    run: Callable[..., Ran], tiny_recipe: Callable[[Path], Path], tmp_path: Path
):
    done = run("plan", tiny_recipe(tmp_path), "--no-probe", "--json", model=None)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["amount"]["examples"] == 24
    assert found["amount"]["steps"] == 12
    assert found["work"]["row_tokens"] <= 512
    assert sum(found["work"]["document_tokens"]) == found["work"]["row_tokens"]
    assert found["model"]["layers"] == 2
    assert not (tmp_path / "runs").exists()


def test_a_config_alone_is_enough(run: Callable[..., Ran]):
    config = Path(__file__).parents[1] / "plan" / "llama_2_7b.json"
    done = run("plan", "--method", "qlora", "--tokens", "64", "--precision", "bf16", "--memory-gb", "24", "--no-probe",
               "--json", model=config)  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["model"]["parameters"] == 6_738_415_616
    assert found["device"]["memory_bytes"] == 24_000_000_000
    assert found["methods"]["qlora"]["verdict"] == "fits"
    assert found["rule_of_thumb"]["bytes"]["full"] == 8 * 6_738_415_616


def test_a_plan_needs_a_recipe_or_a_model(run: Callable[..., Ran]):
    done = run("plan", model=None)
    assert done.code == 1
    assert "tutelage plan --model NAME" in done.err


def test_an_unknown_method_is_named(run: Callable[..., Ran]):
    done = run("plan", "--method", "dora")
    assert done.code == 1
    assert "full, lora, qlora, prompt" in done.err


def test_a_dry_run_says_what_memory_it_would_take(
    run: Callable[..., Ran], tiny_recipe: Callable[[Path], Path], tmp_path: Path
):
    done = run("train", tiny_recipe(tmp_path), "--dry-run", model=None)
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("memory"))
    assert "GB at the peak" in line
    assert "activation checkpointing off" in line


@pytest.mark.parametrize("asked", [("train", "--dry-run"), ("plan", "--no-probe"), ("train",)])
def test_sharing_out_what_cannot_be_is_said_before_any_work(
    run: Callable[..., Ran], tiny_recipe: Callable[[Path], Path], tmp_path: Path, asked: tuple[str, ...]
):
    command, *options = asked
    changes = ("model.parallel=shard", "train.optimizer=adafactor")
    done = run(command, tiny_recipe(tmp_path), *changes, *options, model=None)
    assert done.code == 1
    assert "adafactor does not work on a model that is sharded" in done.err
    assert 'model.parallel = "replicate"' in done.err
    assert "memory" not in done.out
