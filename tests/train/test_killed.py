"""SIGKILL at any moment, also in the middle of a checkpoint: the resumed run is the uninterrupted one, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tutelage.system.seals import SEAL
from tutelage.train.replay_comparison import first_different_tensor

KILLS_OF_THE_LOOP, KILLS_OF_THE_PROGRAM = 20, 4
TIMES = ("tokens_per_second", "elapsed_seconds", "peak_bytes")


def nursed(kind: str, folder: Path, *, seed: int, kills: int) -> dict[str, Any]:
    script = ROOT / "tests/support/killed_run.py"
    done = subprocess.run(
        [sys.executable, str(script), kind, str(folder), str(seed), str(kills)],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    assert told["code"] == 0, done.stderr
    return told


def record(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in {*TIMES, SEAL}} for line in lines]


def checkpoints(run: Path) -> dict[str, dict[str, str]]:
    """The SHA-256 of every file of every checkpoint."""
    return {
        folder.name: {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
        for folder in sorted((run / "checkpoints").iterdir())
    }


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    nursed("loop", whole, seed=0, kills=0)

    told = nursed("loop", killed, seed=11, kills=KILLS_OF_THE_LOOP)

    assert len(told["killed"]) == KILLS_OF_THE_LOOP
    assert len({kill["at"] for kill in told["killed"]}) > KILLS_OF_THE_LOOP // 2, "at many steps"
    half_written = [kill for kill in told["killed"] if kill["left"]]
    assert len(half_written) >= 3, "few kills fell into a write, so the test did not test it"
    assert told["left"] == [], "what killed processes left is gone"
    assert record(killed) == record(whole), "order, losses, norms and measurements"
    assert checkpoints(killed) == checkpoints(whole), "weights, moments, random state and progress"


@pytest.mark.nightly  # the twenty kills above are of the same run without the program around it
def test_killed_commands_change_nothing(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> None:
    runs = {}
    for name, kills in (("whole", 0), ("killed", KILLS_OF_THE_PROGRAM)):
        tiny_recipe(tmp_path / name)
        told = nursed("cli", tmp_path / name, seed=5, kills=kills)
        assert len(told["killed"]) == kills
        assert told["left"] == []
        runs[name] = tmp_path / name / "runs" / "tiny"

    assert record(runs["killed"]) == record(runs["whole"])
    assert checkpoints(runs["killed"]) == checkpoints(runs["whole"])
    assert first_different_tensor(runs["whole"] / "adapter", runs["killed"] / "adapter") is None
    results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in runs.values()]
    assert results[0]["after"] == results[1]["after"]
    assert results[0]["steps"] == results[1]["steps"] == 18
