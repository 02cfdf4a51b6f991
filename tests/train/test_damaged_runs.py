"""Files of a run folder that are not as they were written: said, never a traceback, and never trusted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config, report
from tutelage.builders.trained_model import open_trained_model
from tutelage.errors import CheckpointError
from tutelage.report.console.progress import Screen
from tutelage.runs.folder import read_json, write_json
from tutelage.runs.reading import load
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
DAMAGED = ("before.json", "stopped.json", "record.jsonl", "ledger.json", "ledger.jsonl", "rows.json")
QUICK = ("train.max_steps=4", "evaluate.task=", "evaluate.general=", "train.evaluate_every=4")


def flipped(whole: bytes) -> bytes:
    place = len(whole) // 2
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


@pytest.fixture
def stopped(train_tiny: TrainTiny, stop_after: Callable[[int | None], None], tiny_recipe: Any, tmp_path: Path) -> Path:
    """A run with a dropped row that was stopped after two of four steps, and goes on with the next call."""
    tiny_recipe(tmp_path / "home")
    with (tmp_path / "home" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"messages": 5}\n')
    stop_after(2)
    folder = train_tiny(*QUICK).folder
    stop_after(None)
    write_json(folder / "stopped.json", {"step": 3, "reason": "out_of_memory", "next_row_tokens": 7})
    return folder


@pytest.mark.parametrize(
    "damage", [flipped, cut, lambda _: b"", lambda _: b"5\n", lambda _: b'{"a": 1}\n', lambda _: b"\xff\n"]
)
def test_b20_a_damaged_run_folder_is_resumed_to_the_same_end(
    stopped: Path, train_tiny: TrainTiny, quiet_screen: Screen, record_of: Any, damage: Callable[[bytes], bytes]
) -> None:
    before = read_json(stopped / "before.json")
    books = {name: (stopped / name).read_bytes() for name in ("ledger.json", "ledger.jsonl", "rows.json")}
    for name in DAMAGED:
        (stopped / name).write_bytes(damage((stopped / name).read_bytes()))

    finished = run(config.load(stopped / "settings.toml"), quiet_screen, resume=True)

    told = " ".join(quiet_screen.console.file.getvalue().split())  # type: ignore[attr-defined] # a StringIO
    assert finished.ended == "finished"
    assert "before.json is damaged" in told
    assert "stopped.json is damaged" in told
    assert "the books were damaged" in told
    assert set(record_of(stopped)[0]) >= {3, 4}
    assert read_json(stopped / "before.json") == before, "it is measured again, of the same model"
    assert {name: (stopped / name).read_bytes() for name in books} == books


@pytest.mark.parametrize("name", ["ledger.jsonl", "rows.json", "ledger.json"])
def test_b20_damaged_books_are_named_by_the_resume(stopped: Path, quiet_screen: Screen, name: str) -> None:
    (stopped / name).unlink()

    run(config.load(stopped / "settings.toml"), quiet_screen, resume=True)

    assert f"the books were damaged ({name}: " in " ".join(quiet_screen.console.file.getvalue().split())  # type: ignore[attr-defined] # a StringIO


def test_b20_the_page_names_what_is_not_as_it_was_written(train_tiny: TrainTiny, tmp_path: Path) -> None:
    whole = train_tiny(*QUICK).folder
    assert load(whole).notices == ()
    for name in ("ledger.json", "rows.json", "result.json", "record.jsonl"):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(flipped((folder / name).read_bytes()))

        notices = load(folder).notices

        assert any(name in notice and "not as it was written" in notice for notice in notices), (name, notices)
        assert report.write(folder).is_file()


def test_b20_trained_weights_that_changed_are_not_talked_to(train_tiny: TrainTiny, tmp_path: Path) -> None:
    folder = train_tiny(*QUICK).folder
    weights = folder / "adapter" / "adapter_model.safetensors"
    open_trained_model(str(folder), tuned=True, base=False)
    weights.write_bytes(flipped(weights.read_bytes()))

    with pytest.raises(CheckpointError, match="trained is damaged") as caught:
        open_trained_model(str(folder), tuned=True, base=False)

    assert caught.value.where == str(weights)
