"""The folder of a run: who works in it, what is moved aside for it, and where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.cli import main
from tutelage.errors import ConfigError, EngineError, SaveError, SourceNotFoundError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.lock import locked, new_run_folder
from tutelage.train.replay import replay
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
QUICK = ("train.epochs=1", "evaluate.before=false", "evaluate.task=", "evaluate.general=")
SETTINGS = '[model]\nname = "m"\n[data]\ntrain = ["rows.jsonl"]\n[train]\nepochs = 1\n'
HOLDER = """
import sys, time
from pathlib import Path
from tutelage.errors import EngineError
from tutelage.runs.lock import locked, new_run_folder
try:
    with (locked if sys.argv[1] == "old" else new_run_folder)(Path(sys.argv[2]), log=lambda _: None):
        print("held", flush=True)
        time.sleep(60)
except EngineError:
    print("refused", flush=True)
"""


def begun(folder: Path) -> Path:
    """A folder as an earlier run left it."""
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "inputs.json").write_text("{}", encoding="utf-8")
    return folder


@contextmanager
def processes(kind: str, folder: Path, count: int) -> Iterator[list[tuple[int, str]]]:
    """So many processes at once that ask for the lock of a folder: the id of each and what came of it; then killed."""
    command = [sys.executable, "-c", HOLDER, kind, str(folder)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        yield [(one.pid, one.stdout.readline().strip() if one.stdout else "") for one in started]
    finally:
        for one in started:
            one.send_signal(signal.SIGKILL)
            one.communicate()


@contextmanager
def another_process(kind: str, folder: Path) -> Iterator[int]:
    """A process that holds the lock of a folder until it is killed; its id."""
    with processes(kind, folder, 1) as ((process, said),):
        assert said == "held"
        yield process


@pytest.mark.parametrize("start", ["old", "new"])
def test_b4_a_run_in_use_is_named_and_left_alone_until_its_process_is_killed(tmp_path: Path, start: str) -> None:
    folder = begun(tmp_path / "runs" / "tiny")
    hold = locked if start == "old" else new_run_folder
    with another_process("old", folder) as process:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with (
            pytest.raises(EngineError, match=f"in use by process {process} on ") as caught,
            hold(folder, log=print),
        ):
            pass
        assert caught.value.where == str(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert not folder.with_name("tiny.1").exists()
        assert run_files.existing_run_folder(str(folder)) == folder, "reading is allowed"

    with hold(folder, log=print):  # SIGKILL left nothing to clean
        assert f"process {os.getpid()} on " in (folder / run_files.LOCK).read_text(encoding="utf-8")


def test_b4_two_starts_of_one_name_do_not_mix(tmp_path: Path) -> None:
    folder = begun(tmp_path / "tiny")
    with another_process("new", folder):
        with pytest.raises(EngineError, match="in use"), new_run_folder(folder, log=print):
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.1"]


def test_b4_one_of_many_starts_at_once_gets_the_folder(tmp_path: Path) -> None:
    folder = begun(tmp_path / "tiny")
    with processes("new", folder, 4) as said:
        assert sorted(line for _, line in said) == ["held", "refused", "refused", "refused"]
    assert (folder.with_name("tiny.1") / "settings.toml").read_text(encoding="utf-8") == SETTINGS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.1"]


@pytest.mark.parametrize("replaced", [True, False])
def test_b4_a_folder_that_another_start_moves_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    folder = begun(tmp_path / "tiny")
    is_run = run_files.is_run
    moves = iter([True])

    def moved_first(path: Path) -> bool:
        if next(moves, False):
            folder.rename(folder.with_name("tiny.1"))
            if replaced:
                folder.mkdir()
        return is_run(path)

    monkeypatch.setattr(run_files, "is_run", moved_first)
    with new_run_folder(folder, log=print):
        assert [path.name for path in folder.iterdir()] == [run_files.LOCK]
    assert (tmp_path / "tiny.1" / "settings.toml").read_text(encoding="utf-8") == SETTINGS


def test_b4_a_start_and_a_resume_of_a_run_that_trains_are_refused(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen
) -> None:
    stop_after(1)
    folder = train_tiny(*QUICK).folder
    stop_after(None)
    with another_process("old", folder):
        for resume in (False, True):
            with pytest.raises(EngineError, match="in use"):
                run(config.load(folder / "settings.toml"), quiet_screen, resume=resume)

    assert run(config.load(folder / "settings.toml"), quiet_screen, resume=True).ended == "finished"
    assert "process" not in (folder / run_files.LOCK).read_text(encoding="utf-8").partition("\n")[2]


def test_b4_a_disk_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    said: list[str] = []
    with locked(begun(tmp_path / "tiny"), log=said.append):
        pass
    assert "keeps no locks" in said[0]


def test_an_earlier_run_is_moved_aside_never_overwritten(tmp_path: Path) -> None:
    folder, said = tmp_path / "runs" / "tiny", list[str]()
    for number in (1, 2, 3):
        with new_run_folder(folder, log=said.append):
            assert [path.name for path in folder.iterdir()] == [run_files.LOCK]
            (folder / "settings.toml").write_text(SETTINGS, encoding="utf-8")
            (folder / "result.json").write_text(str(number), encoding="utf-8")
    for number in (1, 2):
        moved = folder.with_name(f"tiny.{number}")
        assert said[number - 1] == f"An earlier run of this name is now {moved}"
        assert (moved / "result.json").read_text(encoding="utf-8") == str(number)
        with locked(moved, log=print):  # it can be gone on with there
            pass


def test_an_empty_folder_and_one_in_which_no_run_began_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    said: list[str] = []
    with new_run_folder(folder, log=said.append):
        (folder / ".ledger.jsonl").write_text("{}", encoding="utf-8")
    with new_run_folder(folder, log=said.append):
        pass
    assert said == []


def test_a_start_that_fails_before_its_run_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_run_folder(tmp_path / "tiny", log=print):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "files", [("rows.jsonl",), ("settings.toml",), ("run.lock",), ("model.safetensors", "config.json")]
)
def test_b10_what_is_no_run_is_neither_moved_nor_written_to(
    train_tiny: TrainTiny, tmp_path: Path, files: tuple[str, ...]
) -> None:
    """Neither data, nor another program's settings, nor a recipe by their name, nor a lock that is not ours."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    for name in files:
        (folder / name).write_text(SETTINGS, encoding="utf-8")

    with pytest.raises(ConfigError, match="must not move") as caught:
        train_tiny(f"folder={tmp_path}", "name=datasets")

    assert caught.value.found == ", ".join(sorted(files))
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == dict.fromkeys(files, SETTINGS)
    assert not (tmp_path / "datasets.1").exists()


def test_b10_damaged_settings_beside_our_lock_are_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    with new_run_folder(folder, log=print):
        (folder / "settings.toml").write_bytes(b"\xff[model")
    with new_run_folder(folder, log=print):
        assert (tmp_path / "tiny.1" / "settings.toml").read_bytes() == b"\xff[model"


@pytest.mark.parametrize("into", ["model", "adapter", "replay", "checkpoints/step-000001", "."])
def test_b10_a_replay_does_not_go_into_the_run(
    train_tiny: TrainTiny, quiet_screen: Screen, tmp_path: Path, into: str
) -> None:
    folder = begun(tmp_path / "tiny")
    (folder / "model").mkdir()
    with pytest.raises(ConfigError, match="folder of its own"):
        replay(str(folder), quiet_screen, into=str(folder / into))
    assert (folder / "model").is_dir()


def test_b10_a_run_does_not_begin_inside_of_another(train_tiny: TrainTiny, tmp_path: Path) -> None:
    folder = begun(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="inside of another run"):
        train_tiny(f"folder={folder}", "name=other")
    assert sorted(path.name for path in folder.iterdir()) == ["inputs.json", "settings.toml"]


@pytest.mark.parametrize(
    ("folder", "name", "found", "fix"),
    [
        ("a file", "tiny", "Not a directory", "folder=PATH"),
        (".", "a file", "File exists", "folder=PATH"),
        (".", "n" * 300, "File name too long", "name=NAME"),
        (".", "a\0b", "null byte", "name=NAME"),
        (".", "a\ud800b", "surrogates not allowed", "name=NAME"),
        ("/proc", "tiny", "No such file or directory", "folder=PATH"),
    ],
)
def test_b21_a_folder_that_cannot_be_is_one_sentence(
    tiny_recipe: Callable[[Path], Path],
    quiet_screen: Screen,
    tmp_path: Path,
    folder: str,
    name: str,
    found: str,
    fix: str,
) -> None:
    (tmp_path / "a file").write_text("in the way", encoding="utf-8")
    settings = config.load(tiny_recipe(tmp_path / "home"))
    settings = settings.model_copy(update={"folder": str(tmp_path / folder), "name": name})
    with pytest.raises(SaveError, match="cannot be made") as caught:
        run(settings, quiet_screen)
    assert found in str(caught.value.found)
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "a/" + "n" * 300])
def test_b21_a_run_that_cannot_be_is_not_a_run(name: str) -> None:
    with pytest.raises(SourceNotFoundError, match="is not a run"):
        run_files.existing_run_folder(name)


@pytest.mark.parametrize(
    ("number", "fix"), [("EROFS", "writable"), ("EACCES", "writable"), ("ENOSPC", "free some space")]
)
def test_b21_a_resume_that_cannot_write_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, fix: str
) -> None:
    import errno

    folder = begun(tmp_path / "tiny")

    def refused(*_: Any) -> int:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with pytest.raises(SaveError, match="Nothing can be written") as caught, locked(folder, log=print):
            pass
    assert caught.value.where == str(folder)
    assert fix in str(caught.value.fix)


def test_b21_the_command_says_it_without_a_traceback(
    tiny_recipe: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tiny_recipe(tmp_path / "home")
    monkeypatch.setattr(sys, "argv", ["tutelage", "train", str(recipe), f"folder={recipe}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code != 0
    said = capsys.readouterr().err
    assert "The run folder cannot be made" in said
    assert "Traceback" not in said
