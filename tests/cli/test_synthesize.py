"""`tutelage synthesize tasks`: what a person sees of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from tests.support.commands import Ran
from tests.synthesize.tasks.conftest import TASK as TOWNS
from tests.synthesize.tasks.conftest import town_rows

Run = Callable[..., Ran]
ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / "recipes/flan/tasks/support_category.toml"


def test_samples_show_the_words_and_write_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("synthesize", "tasks", TASK, "--data-folder", ROOT, "--dry-run", model=None)
    assert ran.code == 0, ran.err
    assert ran.out.count("== support_category (information extraction)") == 3
    assert ran.out.count("[user]") == ran.out.count("[assistant]") == 3
    assert "nothing was written" in ran.err


def test_the_list_has_clusters_templates_licenses_and_what_is_not_there(run: Run) -> None:
    ran = run("synthesize", "tasks", TASK.parent, "--list", "--data-folder", ROOT, model=None)
    assert ran.code == 0, ran.err
    assert "information extraction" in ran.out
    assert "10 templates, 2 turned around; Apache-2.0" in ran.out
    assert "its table is not there" in ran.out


def test_what_is_written_and_said(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("synthesize", "tasks", TASK, "--data-folder", ROOT, "-o", out, "--workers", "1", "-n", "60", model=None)
    assert ran.code == 0, ran.err
    assert "read: 60 in, 60 out" in ran.out
    assert (out / "report.html").is_file()
    assert f"{out / 'tasks.json'}" in ran.out
    assert len((out / "data.jsonl").read_text(encoding="utf-8").splitlines()) == 60


def test_json_for_programs(run: Run, tmp_path: Path) -> None:
    words = (
        "synthesize",
        "tasks",
        TASK,
        "--data-folder",
        ROOT,
        "-o",
        tmp_path / "out",
        "-n",
        "20",
        "--json",
        "--no-page",
    )
    books = json.loads(run(*words, "--workers", "1", model=None).out)
    assert (books["in"], books["kept"], books["trained"]["support_category"]["rows_out"]) == (20, 20, 20)


def test_missing_tables_and_wrong_words_say_what_to_do(run: Run, tmp_path: Path) -> None:
    def error(*words: str | Path) -> str:
        ran = run("synthesize", "tasks", *words, model=None)
        assert ran.code == 1
        return ran.err

    assert "tutelage synthesize tasks TASKS -o flan" in error(TASK, "--data-folder", ROOT)
    assert "name the right folder" in error(tmp_path)
    assert "check the path" in error(tmp_path / "no.toml")
    task = tmp_path / "t.toml"
    task.write_text(TASK.read_text(encoding="utf-8").replace("datasets/", "nowhere/"), encoding="utf-8")
    assert "--skip-missing" in error(task, "-o", tmp_path / "out")
    assert "No table of any task is there" in error(task, "-o", tmp_path / "out", "--skip-missing")
    assert "information extraction" in error(TASK, "--data-folder", ROOT, "-o", tmp_path / "out", "--hold-out", "sums")
    unknown = run("synthesize", "tasks", TASK, "--set", "synthesize.tasks.exemplar=3", model=None)
    assert "synthesize.tasks.exemplars" in unknown.err


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in the current folder, of two tasks, with the cluster of the second held out."""
    monkeypatch.chdir(tmp_path)
    other = TOWNS.replace("town_mood", "letter").replace('"sentiment"', '"letters"').replace("towns.jsonl", "l.jsonl")
    for name, text in (("town_mood", TOWNS), ("letter", other)):
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / f"{name}.toml").write_text(text, encoding="utf-8")
    letters = [row | {"text": f"Letter {n} came by sea and says {n * 31} times that {n + 9} is a good number"}
               for n, row in enumerate(town_rows(40))]  # fmt: skip
    for table, rows in (("towns", town_rows(60)), ("l", letters)):
        path = tmp_path / "tables" / f"{table}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "name": "towns",
        "model": {"name": str(tiny_model_folder), "method": "full", "precision": "fp32", "threads": 1},
        "synthesize": {"tasks": {"tasks": ["tasks"], "data_folder": "tables", "hold_out": ["letters"],
                                 "held_out_items": 20, "held_out_written": 12, "longest_input": 60}},
        "data": {"train": ["made/data.jsonl"]},
        "pack": {"max_seq_length": 256},
        "train": {"epochs": 1.0, "batch_size": 8},
        "evaluate": {"general": ["made/evaluation.jsonl"], "max_new_tokens": 4},
    }  # fmt: skip
    (tmp_path / "towns.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    return tmp_path / "towns.toml"


def test_a_recipe_makes_its_rows_and_is_trained_and_measured_on_what_it_held_out(run: Run, recipe: Path) -> None:
    ran = run("synthesize", "tasks", recipe.name, "--workers", "1", model=None)
    assert ran.code == 0, ran.err
    assert "next: tutelage train towns.toml" in ran.out
    assert "input_too_long" in ran.out  # counted by the model's own tokenizer
    ran = run("train", recipe.name, model=None)
    assert ran.code == 0, ran.err
    result = json.loads((recipe.parent / "runs/towns/result.json").read_text(encoding="utf-8"))
    assert result["multiple_choice"]["items"] == 20
    capabilities = result["uncertainty"]["capabilities"]
    assert {name: found["items"] for name, found in capabilities.items()} == {"letter": 20, "letter, written": 12}
    assert all(found["change"] is not None for found in capabilities.values())


def test_a_held_out_cluster_under_another_name_stops_a_recipe_before_it_is_trained(run: Run, recipe: Path) -> None:
    tables = recipe.parent / "tables"
    rows = [json.loads(line) for line in (tables / "l.jsonl").read_text(encoding="utf-8").splitlines()]
    relabeled = "".join(json.dumps(row | {"label": 1 - row["label"]}) + "\n" for row in rows[:25])
    (tables / "towns.jsonl").write_text(relabeled, encoding="utf-8")
    ran = run("synthesize", "tasks", recipe.name, "--workers", "1", model=None)
    assert ran.code == 1
    assert "What is held out is trained under another name" in ran.err
    assert "town_mood has near-duplicates of 25 rows (62.5%) of letter" in ran.err
    assert not (recipe.parent / "made").exists()


def test_a_recipe_without_tasks_or_without_its_rows_says_what_to_do(run: Run, recipe: Path) -> None:
    ran = run("train", recipe.name, model=None)
    assert ran.code == 1
    assert "tutelage synthesize tasks towns.toml" in ran.err
    ran = run("synthesize", "tasks", recipe.name, "--set", "synthesize.tasks.tasks=[]", model=None)
    assert ran.code == 1
    assert "synthesize tasks TASKS -c towns.toml" in ran.err
    ran = run("synthesize", "tasks", ROOT / "recipes/quickstart.toml", model=None)
    assert ran.code == 1
    assert "The recipe names no tasks" in ran.err
