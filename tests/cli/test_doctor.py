"""`tutelage doctor` on this machine, with torch and as if it were not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
HIDING = """
import sys
sys.modules[{name!r}] = None
from tutelage.cli import main
sys.argv = ['tutelage', 'doctor', *{rest!r}]
main()
"""


def doctor(*rest: str, hidden: str = "nothing") -> str:
    done = subprocess.run(
        [sys.executable, "-c", HIDING.format(name=hidden, rest=rest)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_names_the_machine_the_route_and_the_problems() -> None:
    shown = json.loads(doctor("--json"))

    assert set(shown) == {"machine", "route", "problems", "models"}
    assert set(shown["models"]) >= {"smollm2-135m", "gemma3-270m"}
    assert shown["machine"]["torch"]["version"]
    assert shown["route"]["device"] in {"cpu", "cuda"}
    assert all(set(one) == {"what", "fix"} for one in shown["problems"])


def test_each_problem_is_a_warning_with_something_to_do() -> None:
    text = doctor()

    assert text.count("warning: ") == text.count("do: ")
    assert ("warning: " in text) != ("No problem found." in text)
    assert "processor" in text
    assert "attention" in text


def test_it_runs_without_torch_and_says_so() -> None:
    text = doctor(hidden="torch")

    assert "not without torch" in text
    assert json.loads(doctor("--json", hidden="torch"))["route"] is None
