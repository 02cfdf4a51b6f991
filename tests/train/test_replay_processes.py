"""A replay of a run of two processes: to the bit in two, to rounding in one, and refused where noise was drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli_process import QUIET, tutelage
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.runs.metrics_log import read_record
from tutelage.system.seals import sealed_line
from tutelage.train.replay import replay


def spoil_loss(folder: Path, step: int, by: float) -> None:
    path = folder / "record.jsonl"
    lines = read_record(path)[0]
    for line in lines:
        if line["step"] == step and "loss" in line:
            line["loss"] += by
    path.write_text("".join(sealed_line(line) + "\n" for line in lines), encoding="utf-8")


def test_a_run_of_two_processes_is_repeated(
    tiny_recipe: Callable[[Path], Path], quiet_screen: Screen, tmp_path: Path
) -> None:
    recipe, folder = tiny_recipe(tmp_path / "home"), tmp_path / "home" / "runs" / "tiny"
    settings = ("model.method=full", "train.epochs=1", *QUIET)
    done = tutelage("train", str(recipe), *settings, torchrun=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((folder / "inputs.json").read_text(encoding="utf-8"))["machine"]["processes"] == 2

    done = tutelage("train", "--replay", str(folder), "--processes", "2", torchrun=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("identical: 3 steps and model, to the last bit") == 1, done.stdout

    alone = replay(str(folder), quiet_screen, into=str(tmp_path / "alone"))
    assert (alone.difference, alone.steps, alone.weights, alone.tolerance) == (None, 3, None, 1e-5)
    assert alone.causes == ("processes: 2 then, 1 now",)
    assert "compared to 1e-05" in quiet_screen.console.file.getvalue()

    spoil_loss(folder, 2, 1e-4)
    alone = replay(str(folder), quiet_screen, into=str(tmp_path / "alone"))
    assert str(alone.difference).startswith("step 2, loss: ")
    done = tutelage("train", "--replay", str(folder), torchrun=2)
    assert done.returncode == 1
    assert done.stdout.count("different: step 2, loss: ") == 1, done.stdout

    path = folder / "settings.toml"
    text = path.read_text(encoding="utf-8")
    assert "residual_dropout = 0.0\n" in text
    path.write_text(text.replace("residual_dropout = 0.0\n", "residual_dropout = 0.1\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match="draws its own dropout") as caught:
        replay(str(folder), quiet_screen, into=str(tmp_path / "refused"))
    assert str(caught.value.fix).endswith("--processes 2")
    assert not (tmp_path / "refused").exists()
