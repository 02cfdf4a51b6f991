from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.annotation import workspace, write_prompts
from tests.support.commands import Ran

Demonstrate = Callable[..., Ran]


@pytest.fixture
def demonstrate(run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demonstrate:
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path)
    return lambda *words: run("demonstrate", *words, model=None)


def test_progress_and_rows_are_made_anew_from_the_log(demonstrate: Demonstrate, tmp_path: Path):
    space = workspace(tmp_path)
    prompt = space.assign("anna")
    assert prompt is not None
    space.submit("anna", prompt, page="p", text="written", after=None, began="", seconds=30.0)
    done = demonstrate("prompts.jsonl", "-o", "out", "--no-page", "--export", "alpaca", "--export", "dpo")
    assert done.code == 0, done.err
    assert "out/exports/alpaca.json: 1 rows" in done.err
    assert "out/exports/dpo.jsonl: 0 rows; 1 left out: no other text" in done.err
    assert "anna: 1 written, 0 skipped, 0 flagged" in done.out
    assert "1 demonstrations, 3 to write: out/demonstrations.jsonl" in done.out
    assert """tutelage train RECIPE 'data.train=["out"]'""" in done.out
    assert len((tmp_path / "out" / "demonstrations.jsonl").read_text("utf-8").splitlines()) == 1
    (figures,) = demonstrate("prompts.jsonl", "-o", "out", "--no-page", "--json").lines
    assert (figures["rows"], figures["left"], figures["people"]["anna"]["submit"]) == (1, 3, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prompts.jsonl",), "add -o FOLDER"),
        (("none.jsonl", "-o", "out"), "prompts.jsonl"),
        (("prompts.jsonl", "-o", "out", "--guidelines", "none.md"), "--guidelines"),
        (("prompts.jsonl", "-o", "out", "--overlap", "0"), "--overlap"),
        (("prompts.jsonl", "-o", "out", "--export", "sharegtp"), "nearest: 'sharegpt'"),
        (("empty.jsonl", "-o", "out"), "The file is empty"),
        (("prompts.jsonl", "-o", "prompts.jsonl"), "a file"),
        (("prompts.jsonl", "-o", "."), "holds something else"),
        (("prompts.jsonl", "-o", "other"), "other/events.jsonl"),
    ],
)
def test_bad_input_is_told(demonstrate: Demonstrate, tmp_path: Path, words: tuple[str, ...], said: str):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events.jsonl").write_text("a\nb\n", "utf-8")
    done = demonstrate(*words)
    assert done.code in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_two_programs_do_not_write_into_one_folder(demonstrate: Demonstrate, tmp_path: Path):
    from tutelage.runs.lock import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out", log=print):
        done = demonstrate("prompts.jsonl", "-o", "out", "--no-page")
    assert done.code == 1
    assert "in use by" in done.err
    assert json.loads((tmp_path / "prompts.jsonl").read_text("utf-8").splitlines()[0])
