"""`train --guard` as a person types it: plan, search, a second asking, exit status, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_train import tutelage as tutelage  # noqa: PLC0414 the fixture, by its own name
from tutelage.runs.folder import read_json

Tutelage = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Path:
    """Of few steps, with a general set that replies in JSON fail."""
    path = tiny_recipe(tmp_path)
    rows = [
        {"prompt": f"Say {word}.", "topic": word[0], "checks": [{"kind": "plain_text"}]}
        for word in ("one", "two", "ten", "six", "nine", "seven", "three", "eight")
    ]
    (tmp_path / "general.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_dry_run_shows_split_and_candidates_and_writes_nothing(
    tutelage: Tutelage, recipe: Path, tmp_path: Path
) -> None:
    code, out, err = tutelage("train", str(recipe), "--guard", "forgetting=0.03", "--guard-runs", "2", "--dry-run")

    assert code == 0, err
    for words in (
        "to choose by: 4 items, each 25.0 points",
        "for the report: 4 items, each 25.0 points",
        "fewer than 73 cannot show that nothing was lost",
        "train.learning_rate=0.005",
        "beyond --guard-runs",
        "Left out: replay-5 (data.replay names nothing)",
        "tiny-guard",
    ):
        assert words in out
    assert not (tmp_path / "runs").exists()


def test_forgetting_too_much_ends_with_1_and_says_what_both_halves_say(
    tutelage: Tutelage, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reply is JSON after six epochs, so all plain text is lost, and nothing smaller is tried."""
    monkeypatch.setattr("tutelage.builders.guard.DIAL", (0.9,))
    asked = ("train", str(recipe), "train.epochs=6", "--guard", "forgetting=0.1", "--guard-runs", "1")

    code, out, err = tutelage(*asked)

    assert code == 1, err
    assert "Choice half: no candidate lost at most 10 points; as-it-is lost the least, 100.0 points" in out
    assert "Report half (4 items that took no part in the choice): Forgot too much" in out
    assert "no better than the base" in out, "of four rows none is exact yet"
    assert "tutelage chat" in out
    code, out, err = tutelage(*asked, "--json")
    record = json.loads(out)
    assert (code, record["chosen"]["within_limit"], record["report"]["within_limit"]) == (1, False, False)
    assert "trained and measured before" in err
    saved = read_json(tmp_path / "runs" / "tiny-guard" / "guard.json")
    assert record == {name: value for name, value in saved.items() if name in record}


def test_within_the_limit_ends_with_0(tutelage: Tutelage, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.builders.guard.DIAL", (0.5,))
    short = ("train.max_steps=1", "train.learning_rate=1e-5", "evaluate.max_new_tokens=4", "evaluate.task=")

    code, out, err = tutelage("train", str(recipe), *short, "--guard", "forgetting=0.1", "--guard-first")

    assert code == 0, err
    assert "lost 0.0 points, within 10 points" in out
    assert "Within the limit" in out
    assert "chosen" in out
    assert "half-rate" not in out, "the first one was within the limit"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["RECIPE", "--guard", "forgetting"], "which is 3 points"),
        (["RECIPE", "--guard", "forgetting=2"], "forgetting=0.02"),
        (["RECIPE", "--guard", "speed=1"], "forgetting=0.03"),
        (["--resume", "runs/x", "--guard", "forgetting=0.1"], "--guard and --resume contradict"),
        (["--replay", "runs/x", "--guard", "forgetting=0.1"], "--guard and --replay contradict"),
        (["RECIPE", "--processes", "2", "--guard", "forgetting=0.1"], "--guard and --processes contradict"),
        (["RECIPE", "--fail-if-forgets", "0.1", "--guard", "forgetting=0.1"], "contradict"),
        (["RECIPE", "--guard-runs", "3"], "--guard-runs goes with --guard"),
        (["RECIPE", "--guard-first"], "--guard-first goes with --guard"),
        (["RECIPE", "evaluate.task=", "data.validation=", "--guard", "forgetting=0.1"], "better one at the task"),
        (["RECIPE", 'evaluate.general=["nowhere.jsonl"]', "--guard", "forgetting=0.1"], "nowhere.jsonl"),
        (["--guard", "forgetting=0.1"], "No recipe given"),
    ],
)  # fmt: skip
def test_what_cannot_be_guarded_is_refused(tutelage: Tutelage, recipe: Path, words: list[str], says: str) -> None:
    code, out, err = tutelage("train", *(word.replace("RECIPE", str(recipe)) for word in words))

    assert code == 1
    assert says in err
    assert "do:" in err
    assert "Traceback" not in out + err
    assert not (recipe.parent / "runs").exists()
