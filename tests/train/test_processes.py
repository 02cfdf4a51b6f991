"""Whole runs in several processes are the run of one: losses, weights, and checkpoints of any number of them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.cli_process import LIMIT_SECONDS, QUIET, environment, start, tutelage
from tests.support.compared_runs import OFTEN, Record, assert_same_course, assert_same_weights, stopped_after


def in_two(recipe: Path, *overrides: str) -> Path:
    done = tutelage("train", str(recipe), *overrides, torchrun=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return recipe.parent / "runs" / "tiny"


def test_two_processes_train_the_model_of_one(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    tmp_path: Path,
) -> None:
    settings = ("model.method=full", *QUIET, *OFTEN)
    alone = train_tiny(*settings, where="alone").folder
    recipe = tiny_recipe(tmp_path / "two")
    both = in_two(recipe, *settings)

    assert_same_course(record_of(alone), record_of(both))
    assert_same_weights(alone, both)
    books = [json.loads((one / "ledger.json").read_text(encoding="utf-8")) for one in (alone, both)]
    assert books[0]["rows_in"] == books[1]["rows_in"], "the second process entered nothing"

    rest = stopped_after(both, 4, tmp_path / "four")
    done = tutelage("train", "--resume", str(rest), torchrun=4)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_course(record_of(alone), record_of(rest))
    assert_same_weights(alone, rest)


def test_two_processes_share_lora_and_the_questions(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    tmp_path: Path,
) -> None:
    settings = ("train.learning_rate=0.0003", "train.epochs=2", "evaluate.batch_prompts=3", "evaluate.max_new_tokens=8")
    alone = train_tiny(*settings, where="alone").folder
    both = in_two(tiny_recipe(tmp_path / "two"), *settings)

    assert_same_course(record_of(alone), record_of(both))
    assert_same_weights(alone, both)
    for file in ("before.json", "after.json"):
        asked = [json.loads((one / file).read_text(encoding="utf-8")) for one in (alone, both)]
        assert asked[0]["task"] == asked[1]["task"]
        assert asked[0]["general"] == asked[1]["general"]


def test_a_run_goes_on_with_another_number_of_processes(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    tmp_path: Path,
) -> None:
    settings = ("model.method=full", *QUIET, *OFTEN)
    alone = train_tiny(*settings, where="alone").folder

    from_one = stopped_after(alone, 2, tmp_path / "from_one")
    done = start("train", "--resume", str(from_one), "--processes", "2")
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_course(record_of(alone), record_of(from_one))
    assert_same_weights(alone, from_one)

    from_two = stopped_after(from_one, 4, tmp_path / "from_two")
    assert len([*(from_two / "checkpoints" / "step-000004").glob("shard-*")]) == 2, "two processes wrote it"
    done = tutelage("train", "--resume", str(from_two))
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_course(record_of(alone), record_of(from_two))
    assert_same_weights(alone, from_two)


def test_a_stop_request_to_one_process_stops_all_after_the_same_step(
    tiny_recipe: Callable[[Path], Path], record_of: Callable[[Path], Record], tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path / "home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tutelage", "train", str(recipe), "train.epochs=2000", *QUIET]
    shared = environment() | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    folder = tmp_path / "home" / "runs" / "tiny"
    try:
        until = time.monotonic() + LIMIT_SECONDS
        while not ((folder / "record.jsonl").is_file() and len(record_of(folder)[0]) >= 2):
            assert time.monotonic() < until
            assert all(one.poll() is None for one in started), [one.communicate()[0] for one in started if one.poll()]
            time.sleep(0.1)
        started[1].send_signal(signal.SIGTERM)
        said = [one.communicate(timeout=LIMIT_SECONDS)[0] for one in started]
    finally:
        for one in started:
            one.kill()

    assert [one.returncode for one in started] == [130, 130], said
    steps = max(record_of(folder)[0])
    assert f"Stopped after step {steps}." in said[0]
    assert "Stopped" not in said[1], "one process speaks"
    assert max(path.name for path in (folder / "checkpoints").glob("step-*")) == f"step-{steps:06d}"
    assert not [*(folder / "checkpoints").glob(".*")]
