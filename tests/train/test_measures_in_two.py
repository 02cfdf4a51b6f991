"""A measure fails on one of two processes: both learn it, and nothing that was learned is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.cli_process import launch
from tutelage import config
from tutelage.report.console.progress import Screen
from tutelage.runs.folder import read_json
from tutelage.runs.metrics_log import read_record
from tutelage.train.run import run

SCRIPT = ROOT / "tests/support/fails_in_two.py"
LIMIT_SECONDS = 60
"""A run takes a third of it on two cores that are shared; one that hangs would take hours."""
SETTINGS = (
    "model.method=full",
    "pack.share_prefixes=false",
    "train.max_steps=4",
    "train.evaluate_every=1",
    "train.learning_rate=0.001",
    "train.checkpoint_every=100",
    "evaluate.before=false",
    "evaluate.max_new_tokens=4",
    "evaluate.batch_prompts=2",
)
BOTH = pytest.mark.parametrize("parallel", [pytest.param("replicate", marks=pytest.mark.nightly), "shard"])


def failing(what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return launch(str(SCRIPT), what, "train", *arguments, torchrun=2, limit_seconds=LIMIT_SECONDS)


def heldout_of(folder: Path) -> dict[int, float]:
    lines, damaged = read_record(folder / "record.jsonl")
    assert damaged == []
    return {line["step"]: line["heldout_loss"] for line in lines if "heldout_loss" in line}


@BOTH
def test_b12_two_processes_take_less_at_once_together(
    train_tiny: Callable[..., Any], tiny_recipe: Callable[[Path], Path], tmp_path: Path, parallel: str
) -> None:
    recipe, folder = tiny_recipe(tmp_path / "two"), tmp_path / "two" / "runs" / "tiny"

    done = failing("memory", str(recipe), *SETTINGS, f"model.parallel={parallel}")

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Memory ran out in the held-out loss" in done.stdout
    assert "the rest is asked 1 at once" in done.stdout
    alone = train_tiny(*SETTINGS, where="alone")
    assert heldout_of(folder) == pytest.approx(heldout_of(alone.folder), abs=1e-5, rel=1e-5)
    result = read_json(folder / "result.json")
    assert result["unmeasured"] == {}
    assert result["after"]["heldout_loss"] == pytest.approx(alone.result["after"]["heldout_loss"], abs=1e-5)


@BOTH
def test_b12_a_held_out_loss_that_fails_on_one_loses_no_step(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, quiet_screen: Screen, parallel: str
) -> None:
    recipe, folder = tiny_recipe(tmp_path / "two"), tmp_path / "two" / "runs" / "tiny"

    done = failing("heldout", str(recipe), *SETTINGS, f"model.parallel={parallel}")

    assert done.returncode == 1
    said = "The held-out loss could not be measured after step 2; the run is saved, and ends"
    assert said in done.stderr, done.stderr[-3000:]
    assert "process 1: index out of range in self" in done.stderr
    assert f"tutelage train --resume {folder} --processes 2" in done.stderr
    assert [path.name for path in (folder / "checkpoints").glob("[.s]*")] == ["step-000002"]
    assert run(config.load(folder / "settings.toml"), quiet_screen, resume=True).ended == "finished"
    assert sorted(heldout_of(folder)) == [1, 3, 4]


@pytest.mark.parametrize(
    ("parallel", "what", "cause"),
    [("replicate", "replies", "process 1: index out of range in self"), ("shard", "room", "can't allocate memory")],
)
def test_r2_replies_that_fail_on_one_are_left_out_by_both(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, parallel: str, what: str, cause: str
) -> None:
    recipe, folder = tiny_recipe(tmp_path / "two"), tmp_path / "two" / "runs" / "tiny"
    short = ("train.max_steps=1", "evaluate.batch_prompts=1", f"model.parallel={parallel}")

    done = failing(what, str(recipe), *SETTINGS, *short)

    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "model" / "model.safetensors").is_file()
    result = read_json(folder / "result.json")
    unmeasured = result["unmeasured"]["after"]
    assert set(unmeasured) == {"task", "general"}
    assert all(cause in one for one in unmeasured.values())
    assert result["after"]["heldout_loss"] is not None
