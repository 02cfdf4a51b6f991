"""Several models asked the same questions: the figures are those of each alone, and the first is the measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_train import Tutelage, home, tutelage

__all__ = ["home", "tutelage"]  # fixtures
SHORT = ("--set", "evaluate.max_new_tokens=40")


def test_runs_and_their_base_stand_side_by_side(tutelage: Tutelage, home: Path, tiny_model_folder: Path) -> None:
    names = [str(tiny_model_folder), str(home / "runs" / "tiny"), str(home / "runs" / "whole")]
    questions = ("--general", str(home / "general.jsonl"), "--task", str(home / "task.jsonl"))
    code, out, err = tutelage("evaluate", *names, *questions, "--validation", str(home / "validation.jsonl"), "--json")

    assert code == 0, err
    answers = json.loads(out)
    assert list(answers["models"]) == names
    for name, run in zip(names, ("tiny", "tiny", "whole"), strict=True):
        result = json.loads((home / "runs" / run / "result.json").read_text(encoding="utf-8"))
        expected = result["before" if name == names[0] else "after"]
        assert answers["models"][name]["fields"] == expected["fields"]
        for measure in ("exact_match", "valid_json", "heldout_loss", "general"):
            assert answers["models"][name][measure] == pytest.approx(expected[measure])
        if name != names[0]:
            shares = answers["compared"][name]["shares"]
            assert shares["exact_match"]["change"] == result["uncertainty"]["shares"]["exact_match"]["change"]


def test_two_models_get_a_verdict_and_the_questions_of_the_first_run(tutelage: Tutelage, home: Path) -> None:
    runs = [str(home / "runs" / "tiny"), str(home / "runs" / "whole")]
    code, out, err = tutelage("evaluate", *runs, "--fail-if-forgets", "1")

    assert code == 0, err
    assert "Within the limit" in err
    assert "held-out loss" in out
    assert "verdict" in out


def test_one_model_is_measured_on_questions_of_ones_own(
    tutelage: Tutelage, home: Path, tiny_model_folder: Path
) -> None:
    asked = ("evaluate", str(tiny_model_folder), "--general", str(home / "general.jsonl"), *SHORT)
    code, out, err = tutelage(*asked)
    assert code == 0, err
    assert "general set" in out
    assert "held-out loss" not in out, "no rows were given to measure it on"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["MODEL"], "is not a run"),
        (["MODEL", "MODEL", "--general", "HOME/general.jsonl"], "stands twice"),
        (["MODEL", "HOME/runs/tiny"], "nothing to ask"),
        (["MODEL", "--general", "HOME/nowhere.jsonl"], "nowhere.jsonl"),
        (["HOME/runs/tiny", "HOME/runs/whole", "--base"], "contradict"),
        (["HOME/runs/tiny", "--base", "--general", "HOME/general.jsonl"], "name the base instead"),
        (["HOME/runs/tiny", "no/such/model"], "no/such/model"),
        (
            ["HOME/runs/tiny", "--general", "HOME/general.jsonl", "--set", "evaluate.max_new_token=3"],
            "evaluate.max_new_tokens",
        ),
        (["HOME/runs/tiny", "--general", "HOME/general.jsonl", "--fail-if-forgets", "0.1"], "compared with"),
    ],
)
def test_what_cannot_be_asked_says_so(
    tutelage: Tutelage, home: Path, tiny_model_folder: Path, words: list[str], says: str
) -> None:
    given = [word.replace("MODEL", str(tiny_model_folder)).replace("HOME", str(home)) for word in words]
    code, out, err = tutelage("evaluate", *given)
    assert code == 1
    assert says in err
    assert "Traceback" not in out + err
