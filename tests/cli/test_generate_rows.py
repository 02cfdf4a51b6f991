"""`synthesize self-instruct` and `alpaca` as a person meets them: shown, made, killed, ended, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_process import environment
from tests.support.commands import Ran
from tests.support.fake_endpoint import Reply, fake_endpoint, refused, said
from tests.synthesize.replies import good_reply
from tutelage.synthesize.output import DROPPED, REPORT, ROWS

SEEDS = Path(__file__).parents[2] / "recipes/synthesize/seeds.jsonl"


def well(body: dict[str, Any], _number: int) -> Reply:
    return said(good_reply(body))


@pytest.fixture
def made(run: Callable[..., Ran], tmp_path: Path) -> Callable[..., Ran]:
    """Runs one of the commands, into the folder `out`."""

    def go(method: str, url: str, *words: str) -> Ran:
        asked = ["--seeds", SEEDS, "--model", "m", "--endpoint", url, "-o", tmp_path / "out", "--rows", "40"]
        return run("synthesize", method, *asked, *words, model=None)

    return go


@pytest.mark.parametrize("method", ["alpaca", "self-instruct"])
def test_rows_and_what_came_of_them_are_told(made: Callable[..., Ran], method: str, tmp_path: Path):
    with fake_endpoint(well) as endpoint:
        ran = made(method, endpoint.url)
        again = made(method, endpoint.url, "--json")
        count = len(endpoint.requests)
    assert ran.code == 0, ran.err
    rows = (tmp_path / "out" / ROWS).read_text().count("\n")
    assert f"{rows} rows of" in ran.out
    assert f"{count} requests, {100 * count:,} tokens" in ran.out
    assert "rows for 1,000 tokens" in ran.out
    assert "first words (" in ran.out
    assert f"{count} replies are there already" in again.err
    assert f'"rows": {rows}' in again.out


def test_a_command_killed_by_the_system_goes_on_without_paying_twice(tmp_path: Path):
    process: subprocess.Popen[str] | None = None

    def answer(body: dict[str, Any], number: int) -> Reply:
        if number == 11 and process is not None:
            os.kill(process.pid, signal.SIGKILL)
        return well(body, number)

    def command(folder: Path, url: str) -> subprocess.Popen[str]:
        words = ["synthesize", "alpaca", "--seeds", str(SEEDS), "--model", "m", "--endpoint", url, "-o", str(folder)]
        words += ["--rows", "200", "--parallel", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "tutelage", *words], env=environment(), text=True, stderr=subprocess.PIPE
        )

    with fake_endpoint(well) as calm:
        assert command(tmp_path / "whole", calm.url).wait(120) == 0
    with fake_endpoint(answer) as endpoint:
        process = command(tmp_path / "killed", endpoint.url)
        assert process.wait(120) == -signal.SIGKILL
        rows_then = (tmp_path / "killed" / ROWS).read_bytes()
        process, second = None, command(tmp_path / "killed", endpoint.url)
        assert second.wait(120) == 0
        assert len(endpoint.requests) <= len(calm.requests) + 2, "those that were under way are asked again, no other"
    for name in (ROWS, DROPPED, REPORT):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert rows_then
    assert (tmp_path / "whole" / ROWS).read_bytes().startswith(rows_then)


def test_a_spent_budget_and_a_dead_endpoint_print_the_command_that_goes_on(made: Callable[..., Ran], tmp_path: Path):
    with fake_endpoint(well) as endpoint:
        ended = made("alpaca", endpoint.url, "--max-cost", "0.004", "--prices", "1,1")
    assert ended.code == 0
    assert (
        "Ended early: the budget is spent: --max-cost 0.004. To go on: tutelage synthesize alpaca --seeds" in ended.out
    )
    with fake_endpoint(lambda _body, _number: refused(401, "wrong key")) as endpoint:
        dead = made("alpaca", endpoint.url, "--rows", "4000")
    assert dead.code == 1
    assert f"0 rows are in {tmp_path / 'out' / ROWS}; to go on: tutelage synthesize alpaca --seeds" in dead.err
    assert "wrong key" in dead.err


def test_the_first_prompt_is_shown_and_nothing_else_done(run: Callable[..., Ran], tmp_path: Path):
    ran = run("synthesize", "alpaca", "--seeds", SEEDS, "--model", "nobody", "--dry-run", model=None)
    assert ran.code == 0
    assert "with the numbers 1 to 20" in ran.out
    assert "temperature 1, top-p 1, presence penalty 0, at most 3,072 tokens" in ran.out
    ran = run("synthesize", "self-instruct", "--seeds", SEEDS, "--model", "nobody", "--dry-run", model=None)
    assert "numbers 9 to 16" in ran.out


@pytest.mark.parametrize(
    ("words", "said_so"),
    [
        (("--prices", "cheap"), "These are no prices"),
        (("--prices", "1"), "These are no prices"),
        (("--max-cost", "3"), "A limit of cost needs prices"),
        (("--key-env", "NO_SUCH_VARIABLE"), "holds no key"),
        (("--endpoint", "ftp://here"), "no URL that can be asked"),
        (("--seeds", "nowhere.jsonl"), "There are no such seed tasks"),
    ],
)
def test_wrong_words_are_said_before_anything_is_asked(
    made: Callable[..., Ran], words: tuple[str, ...], said_so: str, tmp_path: Path
):
    with fake_endpoint(well) as endpoint:
        ran = made("alpaca", endpoint.url, *words)
        assert not endpoint.requests
    assert ran.code == 1
    assert said_so in ran.err
    assert not (tmp_path / "out").exists()


def test_rows_need_a_place(run: Callable[..., Ran]):
    ran = run(
        "synthesize", "alpaca", "--seeds", SEEDS, "--model", "m", "--endpoint", "http://127.0.0.1:9/v1", model=None
    )
    assert ran.code == 1
    assert "add -o FOLDER" in ran.err
