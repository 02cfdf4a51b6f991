"""Replies of a real run, joined with the prompts that its data still holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage import config
from tutelage.builders.run_replies import run_replies
from tutelage.errors import DataError, SourceNotFoundError
from tutelage.runs import folder as run_files

AFTER = [f"after {number}" for number in range(4)]


@pytest.fixture
def finished(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Path:
    """The files of a finished run that its replies are read from; no model was asked."""
    from tutelage.builders.base_model import start_folder
    from tutelage.builders.dataset import prepare

    settings = config.load(tiny_recipe(tmp_path))
    folder = settings.run_folder
    folder.mkdir(parents=True)
    (folder / run_files.SETTINGS).write_text(config.dump(settings), encoding="utf-8")
    prepared = prepare(settings, start_folder(settings.model, weights=False))
    hashes = {"data_sha256": prepared.data_sha256, "started_in": os.getcwd()}
    others = ("template_sha256", "tokenizer_sha256", "base_sha256", "settings", "examples_sha256")
    run_files.write_json(folder / run_files.INPUTS, hashes | dict.fromkeys(others, ""))
    for name, task, general in ((run_files.BEFORE, ["b"] * 4, ["x", "y"]), (run_files.AFTER, AFTER, ["u", "v"])):
        run_files.write_json(folder / name, {"measures": {}, "task": task, "general": general, "failed": {}})
    return folder


def test_replies_stand_beside_the_prompts_that_were_asked(finished: Path):
    replies = run_replies(finished, "after", name="tiny after")
    assert [row.reply for row in replies.rows] == [*AFTER, "u", "v"]
    first, *_, general = replies.rows
    assert [(turn.role, turn.content) for turn in first.prompt] == [
        ("system", "Answer in JSON."),
        ("user", "My sister asks for 1 lamps!"),
    ]
    assert first.address.endswith("task.jsonl:1")
    assert [(turn.role, turn.content) for turn in general.prompt] == [("user", "Say something.")]


def test_one_set_alone(finished: Path):
    assert [row.reply for row in run_replies(finished, "before", questions="general", name="b").rows] == ["x", "y"]
    assert [row.reply for row in run_replies(finished, "before", questions="task", name="b").rows] == ["b"] * 4


def test_a_row_that_was_dropped_has_no_reply_and_shifts_none(finished: Path):
    settings = run_files.read_settings(finished)
    task = Path(settings.evaluate.task[0])
    bad = json.dumps({"messages": [{"role": "user", "content": "nobody answers"}]})
    task.write_text(bad + "\n" + task.read_text(encoding="utf-8"), encoding="utf-8")
    inputs = run_files.read_json(finished / run_files.INPUTS)
    from tutelage.system.seals import file_sha256

    inputs["data_sha256"][str(task)] = file_sha256(task)
    run_files.write_json(finished / run_files.INPUTS, inputs)
    rows = run_replies(finished, "after", questions="task", name="a").rows
    assert [(row.address.rpartition(":")[2], row.reply) for row in rows] == list(zip("2345", AFTER, strict=True))


def test_data_that_changed_is_refused(finished: Path):
    task = Path(run_files.read_settings(finished).evaluate.task[0])
    with task.open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(DataError, match="changed since the run"):
        run_replies(finished, "after", name="a")
    assert run_replies(finished, "after", questions="general", name="a").rows


def test_what_is_missing_or_damaged_is_told(finished: Path):
    after = finished / run_files.AFTER
    after.write_bytes(after.read_bytes().replace(b"after 1", b"after 9"))
    with pytest.raises(DataError, match="damaged"):
        run_replies(finished, "after", name="a")
    after.unlink()
    with pytest.raises(SourceNotFoundError, match="no replies from after training"):
        run_replies(finished, "after", name="a")
    run_files.write_json(after, {"measures": {}, "task": ["one"], "general": [], "failed": {}})
    with pytest.raises(DataError, match="not as many"):
        run_replies(finished, "after", name="a")
    run_files.write_json(after, {"measures": {}, "task": [], "general": [], "failed": {"task": "out of memory"}})
    with pytest.raises(DataError, match="kept no replies"):
        run_replies(finished, "after", name="a")


def test_data_that_is_gone_is_told(finished: Path):
    shutil.move(run_files.read_settings(finished).evaluate.general[0], finished / "elsewhere.jsonl")
    with pytest.raises(SourceNotFoundError):
        run_replies(finished, "after", name="a")


def test_no_torch_is_needed(finished: Path):
    """None in `sys.modules` makes an import fail as that of a missing package does."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'peft']))\n"
        "from tutelage.cli import main\n"
        f"sys.argv = ['tutelage', 'compare', {str(finished)!r}, '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 6
