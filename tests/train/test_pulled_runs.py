"""Runs with `train.l2_to_base`: by method and number of processes, resumed, and refused before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.support.cli_process import QUIET, tutelage
from tests.support.compared_runs import Record, assert_same_course, assert_same_weights, weights
from tutelage import config
from tutelage.distributed.strategy import is_sharded
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

QUIETLY = (*QUIET, "train.epochs=2.0")


@pytest.mark.parametrize(("method", "precision"), [("full", "bf16"), ("full", "fp32"), ("lora", "bf16")])
def test_what_was_trained_stays_nearer_to_the_base(
    train_tiny: Callable[..., Any], tiny_model_folder: Path, method: str, precision: str
) -> None:
    given = (*QUIETLY, f"model.method={method}", f"model.precision={precision}")
    free = weights(train_tiny(*given, where="free").folder)
    held = weights(train_tiny(*given, "train.l2_to_base=500", where="held").folder)
    base = load_file(tiny_model_folder / "model.safetensors") if method == "full" else {}

    def distance(trained: dict[str, Any]) -> float:
        if method == "full":
            return max(float((trained[name].float() - base[name].float()).abs().max()) for name in base)
        firsts = [name for name in trained if "lora_A" in name]
        return max(float((trained[name.replace("lora_A", "lora_B")] @ trained[name]).abs().max()) for name in firsts)

    assert 0 < distance(held) < 0.9 * distance(free)


def test_a_resumed_run_is_pulled_to_the_same_start(
    train_tiny: Callable[..., Any],
    record_of: Callable[[Path], Record],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
) -> None:
    given = (*QUIETLY, "model.method=full", "model.precision=bf16", "train.l2_to_base=300")
    whole = train_tiny(*given, where="whole")
    stop_after(4)
    stopped = train_tiny(*given, where="stopped")
    stop_after(None)

    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    expected, found = record_of(whole.folder)[0], record_of(resumed.folder)[0]
    assert [found[step]["loss"] for step in range(1, 7)] == [expected[step]["loss"] for step in range(1, 7)]
    assert_same_weights(whole.folder, resumed.folder, within=1e-12)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_pull_as_one(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    tmp_path: Path,
    method: str,
) -> None:
    """Full fine-tuning is sharded, each process with its part of the start; pairs are whole on each."""
    # At a higher rate AdamW's first steps turn the last bits of a pair's gradient into 5e-6, pulled or not.
    given = (f"model.method={method}", *QUIETLY, "train.learning_rate=0.0003", "train.l2_to_base=1000")
    alone = train_tiny(*given, where="alone").folder
    recipe = tiny_recipe(tmp_path / "two")
    done = tutelage("train", str(recipe), *given, torchrun=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    both = recipe.parent / "runs" / "tiny"

    assert_same_course(record_of(alone), record_of(both))
    assert_same_weights(alone, both)
    assert json.loads((both / "inputs.json").read_text(encoding="utf-8"))["machine"]["processes"] == 2


def test_pairs_that_are_pulled_are_not_sharded() -> None:
    plain: dict[str, Any] = {"optimizer": "adamw", "method": "lora", "init": "default", "l2_to_base": 10.0}

    assert not is_sharded("auto", **plain)
    assert is_sharded("auto", **(plain | {"method": "full"}))
    with pytest.raises(ConfigError, match=r"train\.l2_to_base left out"):
        is_sharded("shard", **plain)
    held = plain | {"l2_to_base": None, "kl_to_base": 1.0}
    assert not is_sharded("auto", **held)
    with pytest.raises(ConfigError, match=r"train\.kl_to_base left out"):
        is_sharded("shard", **held)
