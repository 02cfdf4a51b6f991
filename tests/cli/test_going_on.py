"""`tutelage train --resume RUN --from ... --skip-step` and `--replay RUN`, as a person types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran
from tutelage.runs.fingerprint import read_inputs, write_inputs
from tutelage.runs.folder import write_json
from tutelage.runs.metrics_log import read_record
from tutelage.system.seals import sealed_line

Run = Callable[..., Ran]
QUICK = ("train.max_steps=4", "train.checkpoint_every=2", "data.validation=", "evaluate.before=false", "evaluate.task=")


@pytest.fixture
def finished(run: Run, tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Path:
    ran = run("train", tiny_recipe(tmp_path), *QUICK, model=None)
    assert ran.code == 0, ran.err
    return tmp_path / "runs" / "tiny"


def test_a_replay_that_is_identical_says_so_and_ends_with_0(run: Run, finished: Path) -> None:
    ran = run("train", "--replay", finished, model=None)

    assert ran.code == 0, ran.err
    assert "identical: 4 steps and adapter, to the last bit" in ran.out
    assert (finished.with_name("tiny.replay") / "result.json").is_file()


def test_a_replay_that_differs_names_the_step_and_the_cause_and_ends_with_1(run: Run, finished: Path) -> None:
    record = finished / "record.jsonl"
    lines = read_record(record)[0]
    lines[2]["loss"] = 0.25
    record.write_text("".join(sealed_line(line) + "\n" for line in lines), encoding="utf-8")
    inputs = read_inputs(finished)
    inputs["versions"]["numpy"] = "1.0"
    write_inputs(finished, inputs)

    ran = run("train", "--replay", finished, "--into", finished.with_name("again"), model=None)

    assert ran.code == 1
    assert f"different: step {lines[2]['step']}, loss: 0.25 recorded, " in ran.out
    assert "probable cause: numpy: 1.0 then, " in ran.out
    assert "--resume" not in ran.out  # a replay is begun again, not gone on with
    told = run("train", "--replay", finished, "--json", model=None)
    assert told.code == 1
    assert json.loads(told.out)["difference"]["recorded"] == "0.25"


def test_a_run_goes_on_from_the_checkpoint_that_is_named(run: Run, finished: Path) -> None:
    (finished / "result.json").unlink()
    (finished / "checkpoints" / "step-000004" / "masters.safetensors").write_bytes(b"cut")
    refused = run("train", "--resume", finished, model=None)
    assert refused.code == 1
    assert f"tutelage train --resume {finished} --from step-000002" in refused.err.replace("\n", "")

    ran = run("train", "--resume", finished, "--from", "step-000002", model=None)

    assert ran.code == 0, ran.err
    assert json.loads((finished / "result.json").read_text(encoding="utf-8"))["steps"] == 4


def test_a_stopped_step_is_left_out(run: Run, finished: Path) -> None:
    for name in ("result.json", "record.jsonl"):
        (finished / name).unlink()
    shutil.rmtree(finished / "checkpoints" / "step-000004")
    write_json(finished / "stopped.json", {"step": 3})

    ran = run("train", "--resume", finished, "--skip-step", model=None)

    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in (finished / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["RECIPE", "--from", "step-000002"], "--from goes with --resume"),
        (["RECIPE", "--skip-step"], "--skip-step goes with --resume"),
        (["RECIPE", "--into", "elsewhere"], "--into goes with --replay"),
        (["RECIPE", "--replay", "RUN"], "A replayed run keeps its settings"),
        (["--resume", "RUN", "--replay", "RUN"], "A replayed run keeps its settings"),
        (["--replay", "RUN", "--strict"], "A replayed run keeps its settings"),
        (["--replay", "RUN", "--dry-run"], "A replayed run keeps its settings"),
        (["--resume", "RUN", "--strict"], "A resumed run keeps its settings"),
        (["--replay", "no/such/run"], "is not a run"),
        (["--replay", "RUN", "--into", "RUN"], "A replay needs a folder of its own"),
    ],
)
def test_what_does_not_go_together(run: Run, tiny_recipe: Any, tmp_path: Path, words: list[str], says: str) -> None:
    recipe, folder = tiny_recipe(tmp_path), tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(recipe, folder / "settings.toml")

    ran = run("train", *(word.replace("RECIPE", str(recipe)).replace("RUN", str(folder)) for word in words), model=None)

    assert ran.code == 1
    assert says in ran.err
    assert "do:" in ran.err
