from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.annotation import write_prompts
from tests.support.commands import Ran
from tests.support.fake_endpoint import Reply, fake_endpoint, said

Prefer = Callable[..., Ran]


@pytest.fixture
def prefer(run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prefer:
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path)

    def go(*words: str, keys: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
        return run("prefer", "m", "prompts.jsonl", "-o", "out", *words, model=None)

    return go


def sampling_and_judging(body: dict[str, Any], number: int) -> Reply:
    """As `m` it says something else each time, but for every third; as `judge` it likes the shorter one."""
    if body["model"] == "judge":
        one, two = body["messages"][1]["content"].split(" reply 1\n")[1].split(" reply 2\n")
        return said("1" if len(one.split("\n\n#")[0]) < len(two.split("\n\n#")[0]) else "2")
    return said("the same" if number % 3 == 0 else "other words" + "!" * number)


def test_a_judge_prefers_one_of_two_samples_and_nothing_is_asked_twice(prefer: Prefer, tmp_path: Path):
    with fake_endpoint(sampling_and_judging) as fake:
        words = ("--endpoint", fake.url, "--by", "judge", "--judge-endpoint", fake.url, "--judge", "judge")
        done = prefer(*words, "--parallel", "1")
        assert done.code == 0, done.err
        asked = len(fake.requests)
        assert "4 pairs" in done.err
        again = prefer(*words, "--json")
        assert len(fake.requests) == asked
    rows = [json.loads(line) for line in (tmp_path / "out" / "preferences.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 4 == again.lines[-1]["rows"]
    for row in rows:
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert len(row["chosen"][0]["content"]) < len(row["rejected"][0]["content"])
    assert ["system", "user", "assistant", "user"] in [[turn["role"] for turn in row["prompt"]] for row in rows]


def test_a_person_chooses_blind_in_the_terminal_and_goes_on_later(prefer: Prefer, tmp_path: Path):
    with fake_endpoint(sampling_and_judging) as fake:
        words = ("--endpoint", fake.url, "--by", "terminal", "--rater", "anna")
        first = prefer(*words, keys="1t")
        assert first.code == 0, first.err
        asked = len(fake.requests)
        second = prefer(*words, keys="12")
        assert len(fake.requests) == asked
    assert "3 of 4" in second.out
    assert "3 rows for DPO" in second.out
    assert "no row of 1 ties, 0 pairs" in second.out
    assert "sample" not in first.out + second.out  # whose is where


def test_a_budget_ends_it_and_the_same_command_goes_on(prefer: Prefer):
    with fake_endpoint(sampling_and_judging) as fake:
        done = prefer("--endpoint", fake.url, "--max-requests", "3", "--parallel", "1")
        assert done.code == 0
        assert "Not all was sampled, as the budget is spent" in done.err
        prefer("--endpoint", fake.url, "--max-requests", "3", "--parallel", "1")
        assert len(fake.requests) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "judge"), "no --judge-endpoint"),
        (("--judge", "x"), "--judge is for a judge"),
        (("--endpoint", "ftp://x"), "ftp"),
        (("--by", "terminal", "--rater", " "), "needs a name"),
        (("--draws", "1"), "--draws"),
    ],
)
def test_bad_input_is_told(prefer: Prefer, words: tuple[str, ...], said: str):
    done = prefer(*words)
    assert done.code in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err
