"""SIGKILL while prompts are asked: no reply that was there is asked for again, and the numbers are those of one go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

TASK, GENERAL = 4, 14
BEFORE, AFTER = 2 * (TASK + GENERAL), TASK + GENERAL
"""Replies of each; before training every prompt is asked again for the noise floor."""


def sessions(folder: Path, *lines: int) -> list[dict[str, Any]]:
    """Of `tests/support/killed_evaluation.py`, each of which but the last is killed in the middle of a line."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/killed_evaluation.py"), str(folder), *map(str, lines)],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout.strip().split("\n")[-1])
    return told


def numbers(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    measured = {key: result[key] for key in ("before", "after", "uncertainty", "divergence", "noise", "steps")}
    for name in ("before", "after"):
        saved = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        measured[f"{name}.json"] = {key: saved[key] for key in ("task", "general", "ends", "asked_again")}
    return measured


@pytest.mark.slow
def test_killed_evaluations_ask_for_no_reply_twice(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        tiny_recipe(tmp_path / name)
        prompts = [{"prompt": f"Say {n}!", "checks": [{"kind": "min_words", "count": 1}]} for n in range(GENERAL)]
        (tmp_path / name / "general.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    trained, evaluated = sessions(tmp_path / "whole")
    assert (trained["code"], trained["asked"], trained["kept_after"]) == (0, BEFORE + AFTER, 0)
    assert (evaluated["code"], evaluated["asked"], evaluated["kept_after"]) == (0, AFTER, 0)

    # Killed as its base is asked, as that is asked again, and after training; then in `tutelage evaluate`.
    told = sessions(tmp_path / "killed", 7, 20, 20, -6)

    assert [one["code"] for one in told] == [-9, -9, -9, 0, -9, 0]
    kept = [one["kept_before"] for one in told]
    assert kept == [0, 6, 25, 44, 0, 5]
    assert told[1]["asked"] == BEFORE - kept[1]
    assert told[2]["asked"] == BEFORE - kept[2] + AFTER
    assert told[3]["asked"] == BEFORE + AFTER - kept[3]
    assert told[5]["asked"] == AFTER - kept[5]
    assert told[3]["kept_after"] == told[5]["kept_after"] == 0, "deleted once before.json and after.json have them"
    assert numbers(tmp_path / "killed/runs/tiny") == numbers(tmp_path / "whole/runs/tiny")
    assert not list((tmp_path / "killed/runs").glob("tiny-*")), "no run was moved aside"
