"""What a run began with is recorded, and a resume, a replay and an evaluation are held against it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.builders import dataset as dataset_module
from tutelage.builders.trained_model import open_trained_model
from tutelage.errors import CheckpointError, SourceNotFoundError
from tutelage.model import checksums
from tutelage.model.checksums import model_sha256
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import REQUIRED_SAME, read_inputs, write_inputs
from tutelage.train import startup
from tutelage.train.replay import replay
from tutelage.train.run import Finished, run

QUICK = ("train.epochs=1", "evaluate.before=false", "evaluate.task=", "evaluate.general=")


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model in a folder that a test may change."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def stopped(train_tiny: Callable[..., Finished], stop_after: Callable[[int | None], None], model: Path) -> Path:
    """A run of that model, stopped after its first step."""
    stop_after(1)
    folder = train_tiny(*QUICK, f"model.name={model}").folder
    stop_after(None)
    return folder


def resume(folder: Path, screen: Screen) -> Finished:
    return run(config.load(folder / "settings.toml"), screen, resume=True)


def changed_weights(model: Path) -> None:
    """One bit of the last weight, and the times as they were."""
    path = model / "model.safetensors"
    data, times = bytearray(path.read_bytes()), path.stat()
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def changed_config(model: Path) -> None:
    path = model / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"rms_norm_eps": 1e-2}), encoding="utf-8")


def changed_tokenizer(model: Path) -> None:
    """A merge less: the same letters, other tokens."""
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def another_file(model: Path) -> None:
    (model / "modeling_other.py").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "named", "where"),
    [
        (changed_weights, "base model", "model.safetensors"),
        (changed_config, "base model", "config.json"),
        (changed_tokenizer, "tokenizer", "tokenizer"),
        (another_file, "base model", "modeling_other.py"),
    ],
)
def test_b8_another_model_or_tokenizer_is_refused(
    stopped: Path, model: Path, quiet_screen: Screen, change: Callable[[Path], None], named: str, where: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    original = Path(shutil.copytree(model, model.with_name("original")))
    change(model)
    for act, word in ((resume, "resume"), (lambda *_: replay(str(stopped), quiet_screen), "replay")):
        with pytest.raises(CheckpointError, match=f"{named}.* is not the one.*would not be a {word}") as caught:
            act(stopped, quiet_screen)
        assert where in str(caught.value.where)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before

    shutil.rmtree(model)
    shutil.copytree(original, model)
    assert resume(stopped, quiet_screen).ended == "finished"


@pytest.mark.parametrize(("change", "named"), [(changed_weights, "base model"), (changed_tokenizer, "tokenizer")])
def test_b8_an_adapter_is_not_put_on_another_model(
    stopped: Path, model: Path, quiet_screen: Screen, change: Callable[[Path], None], named: str
) -> None:
    resume(stopped, quiet_screen)
    change(model)
    with pytest.raises(CheckpointError, match=f"{named} is not the one this run began with"):
        open_trained_model(str(stopped), tuned=True, base=False)


@pytest.mark.parametrize("how", ["continue", "merge"])
def test_b8_another_adapter_to_start_from_is_refused(
    train_tiny: Callable[..., Finished],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    how: str,
) -> None:
    first = train_tiny(*QUICK, "train.max_steps=1").folder
    stop_after(1)
    second = train_tiny(*QUICK, f"model.name={first}", f"model.adapter={how}", "name=second").folder
    stop_after(None)
    path = first / "adapter" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="base model is not the one this run began with"):
        resume(second, quiet_screen)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("learning_rate = 0.01", "learning_rate = 0.02", "train.learning_rate = 0.01 then, 0.02 now"),
        ("seed = 7", "seed = 8", "seed = 7 then, 8 now"),
        ("[train]\n", "[train]\nspike_factor = 9.0\n", "train.spike_factor = not set then, 9.0 now"),
    ],
)
def test_b8_other_settings_are_refused(stopped: Path, quiet_screen: Screen, old: str, new: str, named: str) -> None:
    path = stopped / "settings.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match="The set of settings is not the one") as caught:
        resume(stopped, quiet_screen)
    assert caught.value.where == named


def test_b8_settings_that_change_nothing_may_be_others(stopped: Path, quiet_screen: Screen) -> None:
    """And a run may be moved, and its settings read in a version that has fields more."""
    path = stopped / "settings.toml"
    text = path.read_text(encoding="utf-8").replace("keep_checkpoints = 2", "keep_checkpoints = 5")
    path.write_text(text + "\n# a remark\n", encoding="utf-8")
    inputs = read_inputs(stopped)
    del inputs["settings"]["train"]["beta2"]  # a field that the recording version did not have, with its default
    write_inputs(stopped, inputs)
    moved = stopped.rename(stopped.with_name("moved"))
    settings = config.load(moved / "settings.toml").model_copy(update={"folder": str(moved.parent), "name": "moved"})
    assert run(settings, quiet_screen, resume=True).ended == "finished"


def test_b8_rows_that_come_out_otherwise_are_refused(
    stopped: Path, quiet_screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files and settings, and another version's reading of them."""
    inputs = read_inputs(stopped)
    inputs["versions"]["tutelage"] = "0.0.1"
    write_inputs(stopped, inputs)
    store_rows = dataset_module.store_rows

    def twice(read: Any, renderer: Any, ledger: Any, store: Any, **named: Any) -> None:
        def store_twice(chunk: Any) -> None:
            store(chunk)
            store(chunk)

        store_rows(read, renderer, ledger, store_twice, **named)

    monkeypatch.setattr(dataset_module, "store_rows", twice)
    monkeypatch.setattr(dataset_module.Cache, "find", lambda *_: None)
    with pytest.raises(CheckpointError, match="outcome of preparing the data is not the one") as caught:
        resume(stopped, quiet_screen)
    assert "tutelage: 0.0.1 then" in str(caught.value.found)


@pytest.mark.parametrize("content", [None, b"{}", b"", b"[]", b"null", b"5", b'{"seed": 7}', b"\xff\x00", b"[" * 5000])
def test_b9_a_run_that_cannot_tell_what_it_began_with_is_not_resumed(
    stopped: Path, quiet_screen: Screen, content: bytes | None
) -> None:
    path = stopped / "inputs.json"
    path.unlink() if content is None else path.write_bytes(content)
    for act in (lambda: resume(stopped, quiet_screen), lambda: replay(str(stopped), quiet_screen)):
        with pytest.raises(CheckpointError, match="Cannot tell whether data, template and model") as caught:
            act()
        assert caught.value.where == str(path)
    advice = str(caught.value.fix).rpartition("tutelage train ")[2].split(" ")
    assert config.load(advice[0], advice[1:]).run_folder == stopped.with_name("tiny-again")


def test_b9_each_flipped_bit_and_each_missing_entry_is_found(stopped: Path) -> None:
    path = stopped / "inputs.json"
    whole = path.read_bytes()
    inputs = read_inputs(stopped)
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="Cannot tell"):
            read_inputs(stopped)
    for name in REQUIRED_SAME:
        write_inputs(stopped, {key: value for key, value in inputs.items() if key != name})
        with pytest.raises(CheckpointError, match="Cannot tell"):
            read_inputs(stopped)
    write_inputs(stopped, inputs)
    assert read_inputs(stopped) == inputs


def test_b9_a_damaged_record_does_not_keep_from_talking_to_a_run(stopped: Path, quiet_screen: Screen) -> None:
    resume(stopped, quiet_screen)
    (stopped / "inputs.json").write_text("{", encoding="utf-8")
    said: list[str] = []
    opened = open_trained_model(str(stopped), tuned=True, base=False, log=said.append)
    assert opened.system_prompt is None
    assert any("nothing tells the system prompt" in line for line in said)


def test_b8_a_file_is_hashed_once_and_again_when_it_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    read: list[Path] = []
    hashed = checksums._hashed

    def noting(path: Path, cache: Path | None) -> str:
        read.append(path)
        return hashed(path, cache)

    monkeypatch.setattr(checksums, "_hashed", noting)
    first = model_sha256(folder, cache=cache, log=print)
    assert model_sha256(folder, cache=cache, log=print) == first
    assert len(read) == 2, "a file that was written just now may change again within the same tick"
    later = time.time() + 10
    monkeypatch.setattr(checksums.time, "time", lambda: later)
    for _ in range(3):
        assert model_sha256(folder, cache=cache, log=print) == first
    assert len(read) == 3
    (entry,) = cache.iterdir()
    entry.write_bytes(entry.read_bytes().replace(b'"state"', b'"stale"'))
    assert model_sha256(folder, cache=cache, log=print) == first, "a damaged memory is no memory"
    changed_weights(folder)
    assert model_sha256(folder, cache=cache, log=print) != first
    assert model_sha256(folder, cache=None, log=print) == model_sha256(folder, cache=cache, log=print)


def test_a_checkpoint_that_is_not_there_is_said_before_data_is_proven(
    stopped: Path, quiet_screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "prepare", None)
    settings = config.load(stopped / "settings.toml")
    with pytest.raises(CheckpointError, match="no checkpoint 'step-7'"):
        run(settings, quiet_screen, resume=True, checkpoint="step-7")
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(CheckpointError, match="There is no checkpoint to resume from"):
        run(settings, quiet_screen, resume=True)


def test_a_resume_from_another_folder_says_where_the_run_was_started(
    train_tiny: Callable[..., Finished],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_recipe: Callable[[Path], Path],
) -> None:
    tiny_recipe(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    stop_after(1)
    train_tiny(*QUICK, 'data.train=["train.jsonl"]', "folder=runs")
    stop_after(None)
    monkeypatch.chdir(tmp_path)
    settings = config.load("home/runs/tiny/settings.toml").model_copy(update={"folder": "home/runs"})
    with pytest.raises(SourceNotFoundError) as caught:
        run(settings, quiet_screen, resume=True)
    start, again = (words[-1] for words in (part.split() for part in str(caught.value.fix).split(", and")))
    monkeypatch.chdir(start)
    settings = config.load(Path(again) / "settings.toml").model_copy(update={"folder": str(Path(again).parent)})
    assert run(settings, quiet_screen, resume=True).ended == "finished"


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"[model", "not valid TOML"), (b"\xff", "not UTF-8"), (b"[train]\nepoch_count = 3\n", "epoch")],
)
def test_settings_that_are_damaged_or_of_another_version_are_no_recipe_to_mend(
    stopped: Path, content: bytes, found: str
) -> None:
    path = stopped / "settings.toml"
    path.write_bytes(content)
    for read in (run_files.read_settings, lambda folder: open_trained_model(str(folder), tuned=True, base=False)):
        with pytest.raises(CheckpointError, match="settings of this run cannot be read") as caught:
            read(stopped)
        assert found in str(caught.value.found)
        assert str(path) in str(caught.value.where)
