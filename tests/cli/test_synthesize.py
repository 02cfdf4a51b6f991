"""`tutelage synthesize tasks`: what a person sees of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.commands import Ran

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
