"""The room that a run needs on the disk is asked for before anything is trained."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.distributed.process_group import SINGLE
from tutelage.errors import SaveError
from tutelage.report.console.progress import Screen
from tutelage.report.numbers import byte_size
from tutelage.train.disk_space import DiskNeeds, require_room
from tutelage.train.run import Finished

Usage = namedtuple("Usage", ["total", "used", "free"])

NEEDS = DiskNeeds(weights=100, state=200, keep=2)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**12, 0, free))


def test_what_a_run_writes_at_once() -> None:
    assert NEEDS.least == 300 + 100 + 100
    assert NEEDS.most == 3 * 300 + 2 * 100 + 100


@pytest.mark.parametrize(("free", "notes"), [(1200, 0), (1199, 1), (500, 1)])
def test_less_than_all_of_it_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, notes: int) -> None:
    with_free(monkeypatch, free)
    said: list[str] = []
    require_room(tmp_path, NEEDS, SINGLE, log=said.append)
    assert len(said) == notes
    assert all(f"may take {byte_size(1200)}" in line and "train.keep_checkpoints = 2" in line for line in said)


def test_less_than_one_checkpoint_and_the_model_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_free(monkeypatch, 499)
    with pytest.raises(SaveError) as error:
        require_room(tmp_path, NEEDS, SINGLE, log=lambda _line: None)
    assert (error.value.where, error.value.found) == (str(tmp_path), f"{byte_size(499)} free")


def test_checkpoints_of_the_run_count_as_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_free(monkeypatch, 499)
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000001" / "masters.safetensors").write_bytes(bytes(1))
    said: list[str] = []
    require_room(tmp_path, NEEDS, SINGLE, log=said.append)
    assert len(said) == 1


def test_a_run_asks_before_its_first_step(
    train_tiny: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen
) -> None:
    with_free(monkeypatch, 1000)
    with pytest.raises(SaveError, match="no room for what this run will write"):
        train_tiny("train.max_steps=1", "evaluate.before=false")
    file: Any = quiet_screen.console.file
    assert "step 1/" not in file.getvalue()
