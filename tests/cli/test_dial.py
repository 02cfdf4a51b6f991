"""evaluate --dial as a person types it: a table, JSON, a page, and what is wrong with a command line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tutelage import config
from tutelage.cli import main
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

Answer = tuple[int, str, str]


@pytest.fixture(scope="module")
def finished(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dial")
    settings = config.load(tiny_recipe(folder), ("train.max_steps=4", "evaluate.max_new_tokens=8", "name=[b]tiny"))
    return run(settings, Screen(Console(file=io.StringIO()))).folder


@pytest.fixture
def evaluate(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    def call(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["tutelage", "evaluate", str(finished), *words])
        monkeypatch.setenv("COLUMNS", "80")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def test_a_table_json_and_a_page(evaluate: Callable[..., Answer], finished: Path) -> None:
    code, out, err = evaluate("--dial", "0.5,0,1")
    assert code == 0, err
    assert "against the base" in " ".join(out.split())
    assert "No knee shown: tuned gained nothing" in " ".join(out.split())
    assert "Largest value that lost at most 3.0" in " ".join(out.replace("\u00a0", " ").split())
    assert max(map(len, (line for line in out.splitlines() if not line.startswith("Page: ")))) <= 80
    assert "about" in err, "the time left"
    page = finished / "dial.html"
    assert str(page) in out
    assert "[b]tiny" in page.read_text(encoding="utf-8")

    code, out, err = evaluate("--dial", "0.5,1.5", "--margin", "0.6", "--json")
    assert code == 0, err
    assert "Measuring at 1.5:" in err, "the others are known"
    printed: dict[str, Any] = json.loads(out)
    assert [entry["value"] for entry in printed["values"]] == [0.0, 0.5, 1.0, 1.5]
    assert (printed["gain"], printed["forgetting"], printed["knee"]) == ("exact_match", "general", None)
    assert printed["margin"] == 0.6
    assert printed["within_margin"] == 1.5
    assert printed["page"] == str(page)
    losses = [entry["metrics"]["heldout_loss"] for entry in printed["values"]]
    assert losses[0] > losses[1] > losses[2]
    assert set(printed["values"][1]["intervals"]) >= {"exact_match", "general", "item"}
    assert set(printed["values"][1]["divergence"]) == {"task", "general"}


def test_a_value_is_kept_as_a_model(evaluate: Callable[..., Answer], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out_folder = tmp_path / "kept"
    code, out, err = evaluate("--dial", "1", "--save-dial", "0.25", str(out_folder))
    assert code == 0, err
    assert f"Model: {out_folder}" in " ".join(out.split("\n"))
    assert "0.25" in out, "it is measured, too"
    AutoModelForCausalLM.from_pretrained(out_folder)

    code, out, err = evaluate("--dial", "1", "--save-dial", "0.25", str(out_folder))
    assert code == 1
    assert "holds something" in " ".join(err.split())
    assert "Measuring" not in err
    code, out, err = evaluate("--dial", "0.25,1", "--save-dial", "0.25", str(tmp_path / "other"), "--json")
    assert code == 0, err
    assert json.loads(out)["saved"] == str(tmp_path / "other")
    code, out, err = evaluate("--dial", "0.5,1", "--save-dial", "knee", str(tmp_path / "knee"))
    assert code == 1
    assert "No knee is shown, so no model was written" in " ".join(err.split())
    assert "against the base" in " ".join(out.split()), "what was measured is shown all the same"
    assert not (tmp_path / "knee").exists()
    code, out, err = evaluate("--save-dial", "0.5", str(tmp_path / "alone"))
    assert code == 1
    assert "--save-dial belongs to --dial" in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--dial", "abc"], "abc"),
        (["--dial", ""], "''"),
        (["--dial", "0,,1"], "'0,,1'"),
        (["--dial", "0,0.5,0.50"], "0.5 twice"),
        (["--dial=-0,0"], "0 twice"),
        (["--dial=-0.5"], "-0.5"),
        (["--dial", "2.5"], "2.5"),
        (["--dial", "nan"], "nan"),
        (["--dial", "0;1"], "0;1"),
        (["--dial", "1", "--base"], "--dial and --base contradict"),
        (["--dial", "1", "--adapter", "a=b"], "--dial and --adapter contradict"),
        (["--dial", "1", "--fail-if-forgets", "0.1"], "--dial and --fail-if-forgets contradict"),
        (["another", "--dial", "1"], "--dial and several models contradict"),
        (["--dial", "1", "--general", "probes"], "--dial and other questions contradict"),
        (["--margin", "0.1"], "--margin belongs to --dial"),
        (["--dial", "1", "--margin", "3"], "--margin"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_loaded(
    evaluate: Callable[..., Answer], words: list[str], found: str
) -> None:
    code, out, err = evaluate(*words)

    assert code in (1, 2)
    assert found in err
    assert "do:" in err
    assert "Traceback" not in out + err
    assert "Measuring" not in err


def test_a_file_of_somebody_else_stops_it_before_it_measures(evaluate: Callable[..., Answer], finished: Path) -> None:
    page = finished / "dial.html"
    page.unlink(missing_ok=True)
    page.write_text("mine", encoding="utf-8")
    code, _, err = evaluate("--dial", "0.33")

    assert code == 1
    assert "no page of ours" in err
    assert "Measuring" not in err
    assert page.read_text(encoding="utf-8") == "mine"
    page.unlink()
