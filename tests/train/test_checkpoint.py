"""Checkpoints: bit for bit, whole or not there, and errors that name the next good one."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import CheckpointError, SaveError, TrainingError
from tutelage.optim.master_weights import MasterWeights
from tutelage.system.seals import sealed, unsealed
from tutelage.train import checkpoint as checkpoint_module
from tutelage.train.checkpoint import Checkpoints, Progress

Maker = Callable[..., Any]


@pytest.fixture
def trained(small_network: Maker, master_adamw: Maker) -> MasterWeights:
    """An optimizer with two steps behind it."""
    model = small_network()
    optimizer: MasterWeights = master_adamw(model)
    for _ in range(2):
        move(model, optimizer)
    return optimizer


def move(model: torch.nn.Module, optimizer: MasterWeights) -> None:
    model(torch.randn(4, 6)).square().sum().backward()
    optimizer.step(0.01, max_grad_norm=1.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_restored_is_what_was_saved(
    trained: MasterWeights, small_network: Maker, master_adamw: Maker, tmp_path: Path
) -> None:
    progress = Progress(2, best_loss=0.5, best_step=1, evaluations_since_best=1, tokens=80, trained_tokens=30)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    checkpoints.save_best(trained, Progress(1, best_loss=0.5, best_step=1))
    saved_at = checkpoints.save(trained, progress)
    drawn = torch.rand(3)
    model = small_network(seed=9)
    other = master_adamw(model)

    found = checkpoints.restore_newest(other)

    assert saved_at.name == "step-000002"
    assert found == progress
    assert torch.equal(torch.rand(3), drawn), "the random state comes back too"
    assert all(torch.equal(one, other.masters[name]) for name, one in trained.masters.items())
    assert all(torch.equal(one, other.state()[name]) for name, one in trained.state().items())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trained.masters[name])


def test_only_the_newest_stay(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(trained, Progress(1))
    for step in (1, 2, 3, 10):
        checkpoints.save(trained, Progress(step))

    assert names(tmp_path) == ["best-000001", "step-000003", "step-000010"]


def test_coming_to_the_same_step_again_leaves_it_alone(trained: MasterWeights, tmp_path: Path) -> None:
    """A resumed run computes the same bits, so what is there stays, and no kill can hurt it."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(trained, Progress(2, tokens=5))
    written = (tmp_path / "step-000002" / "state.json").stat().st_mtime_ns
    checkpoints.save(trained, Progress(2, tokens=5))

    assert checkpoints.restore_newest(trained).tokens == 5
    assert (tmp_path / "step-000002" / "state.json").stat().st_mtime_ns == written
    assert names(tmp_path) == ["step-000002"]


def test_going_on_from_an_older_one_forgets_what_came_later(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (1, 2, 3):
        checkpoints.save_best(trained, Progress(step, best_step=step))
        checkpoints.save(trained, Progress(step, best_step=step, tokens=step))
    assert names(tmp_path)[:3] == ["best-000001", "best-000002", "best-000003"], "each checkpoint counts on its own"

    progress = checkpoints.restore_newest(trained, chosen="step-000002")

    assert progress.tokens == 2
    assert names(tmp_path) == ["best-000001", "best-000002", "step-000001", "step-000002"]
    assert checkpoints.restore_best(trained, step=2).steps_done == 2


def test_a_checkpoint_that_is_not_there_is_no_choice(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (1, 2):
        checkpoints.save(trained, Progress(step))

    with pytest.raises(CheckpointError, match="no checkpoint 'step-7'") as caught:
        checkpoints.restore_newest(trained, chosen="step-7")

    assert caught.value.found == "step-000002, step-000001"
    assert len(names(tmp_path)) == 2


def test_the_offered_checkpoint_is_one_that_is_whole(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (1, 2, 3):
        checkpoints.save(trained, Progress(step))
    for step in (2, 3):
        (tmp_path / f"step-{step:06d}" / "moments.safetensors").write_bytes(b"cut")

    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoints.restore_newest(trained)

    assert "--from step-000001" in str(caught.value.fix)


@pytest.mark.parametrize("best", [False, True])
def test_a_full_disk_leaves_the_earlier_best_and_checkpoints(
    trained: MasterWeights, tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]], best: bool
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save_best(trained, Progress(1, best_step=1))
    checkpoints.save(trained, Progress(1, best_step=1))
    write = checkpoints.save_best if best else checkpoints.save

    with files_at_most(200), pytest.raises(SaveError):
        write(trained, Progress(2, best_step=2))

    assert names(tmp_path) == ["best-000001", "step-000001"]
    assert checkpoints.restore_newest(trained).steps_done == 1
    assert checkpoints.restore_best(trained, step=1).steps_done == 1


def test_best_weights_come_back(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save_best(trained, Progress(2, best_loss=0.25, best_step=2))
    kept = {name: one.clone() for name, one in trained.masters.items()}
    for one in trained.masters.values():
        one.add_(1.0)
    trained.copy_to_model()

    progress = checkpoints.restore_best(trained, step=2)

    assert progress.best_step == 2
    for name, one in kept.items():
        assert torch.equal(trained.masters[name], one)
        assert torch.equal(trained.parameters[name], one)


@pytest.mark.parametrize("file", ["masters.safetensors", "moments.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_is_named_and_so_is_the_one_before(
    trained: MasterWeights, tmp_path: Path, file: str, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(trained, Progress(step))
    path = tmp_path / "step-000002" / file
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    before = {name: one.clone() for name, one in trained.masters.items()}

    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoints.restore_newest(trained)

    assert "step-000002" in str(caught.value.where)
    assert "step-000001" in str(caught.value.fix)
    assert all(torch.equal(one, before[name]) for name, one in trained.masters.items())


def test_a_single_damaged_checkpoint_says_start_again(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(trained, Progress(1))
    (tmp_path / "step-000001" / "state.json").write_text("[]", encoding="utf-8")

    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoints.restore_newest(trained)

    assert caught.value.fix == "start the run again"


def test_nothing_to_resume_from(trained: MasterWeights, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Checkpoints(tmp_path / "none", keep=1).restore_newest(trained)


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(
    trained: MasterWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(trained, Progress(1, tokens=7))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", full)
        with pytest.raises(SaveError, match="could not be saved") as caught:
            checkpoints.save(trained, Progress(2))

    assert caught.value.found == "No space left on device"
    assert names(tmp_path) == ["step-000001"]
    assert checkpoints.restore_newest(trained).tokens == 7


def test_a_write_that_the_system_refuses_is_a_save_error(
    trained: MasterWeights, tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    """What safetensors itself raises on a full disk is no OSError."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(trained, Progress(1, tokens=7))

    with files_at_most(200), pytest.raises(SaveError, match="could not be saved"):
        checkpoints.save(trained, Progress(2))

    assert names(tmp_path) == ["step-000001"]
    assert checkpoints.restore_newest(trained).tokens == 7


@pytest.mark.parametrize(
    ("number", "fix"), [("EACCES", "make the folder writable"), ("EROFS", "make the folder"), ("ENOSPC", "free some")]
)
@pytest.mark.parametrize("processes", [1, 2])
def test_b12_a_save_that_fails_says_what_helps_there(
    trained: MasterWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, fix: str, processes: int
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code))

    class OfTwo(ProcessGroup):
        def gather(self, value: Any) -> list[Any]:
            return [value, value]

        def any(self, flag: bool) -> bool:
            return flag

    monkeypatch.setattr(checkpoint_module, "save_file", refuses)
    monkeypatch.setattr(checkpoint_module, "write_shards", refuses)
    process_group = OfTwo(0, 2) if processes == 2 else SINGLE

    with pytest.raises(SaveError) as caught:
        Checkpoints(tmp_path, keep=1, process_group=process_group).save(trained, Progress(1))

    assert str(caught.value.fix).startswith(fix)
    assert caught.value.found == os.strerror(getattr(errno, number))


@pytest.mark.parametrize("after", [1, 2])
def test_killed_while_writing_leaves_no_half_folder(
    trained: MasterWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A power cut: what runs in `finally` does not run either."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(trained, Progress(1))
    save_file, written = checkpoint_module.save_file, []

    class PowerCut(BaseException):
        pass

    def cut(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) == after:
            path.write_bytes(b"half")
            raise PowerCut
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", cut)
        patch.setattr(checkpoint_module.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(PowerCut):
            checkpoints.save(trained, Progress(2))

    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["step-000001"]
    assert checkpoints.restore_newest(trained).steps_done == 1
    checkpoints.save(trained, Progress(2))
    assert checkpoints.restore_newest(trained).steps_done == 2


def test_left_overs_of_a_kill_before_the_clean_up_do_no_harm(
    trained: MasterWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after the new folder took its name and before the old one was deleted."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(trained, Progress(1))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module.shutil, "rmtree", lambda *_, **__: None)
        checkpoints.save_best(trained, Progress(2))
    assert {"best-000001", "best-000002"} <= set(names(tmp_path)), "the kill left the old one behind"
    assert checkpoints.restore_best(trained, step=2).steps_done == 2

    checkpoints.save_best(trained, Progress(3))

    assert names(tmp_path) == ["best-000003"]
    assert checkpoints.restore_best(trained, step=3).steps_done == 3


def test_a_kill_before_the_rename_does_not_lose_the_best(
    trained: MasterWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(trained, Progress(1))

    class PowerCut(BaseException):
        pass

    def cut(source: Path, target: Path) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("tutelage.system.files.os.replace", cut)
        patch.setattr(checkpoint_module.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(PowerCut):
            checkpoints.save_best(trained, Progress(2))

    assert checkpoints.restore_best(trained, step=1).steps_done == 1


def test_state_is_readable_json(trained: MasterWeights, tmp_path: Path) -> None:
    Checkpoints(tmp_path, keep=1).save(trained, Progress(4, tokens=9))

    state = json.loads((tmp_path / "step-000004" / "state.json").read_text(encoding="utf-8"))

    assert state["progress"]["tokens"] == 9
    assert set(state["sha256"]) == {"masters.safetensors", "moments.safetensors"}


def test_b1_every_flipped_bit_of_the_state_is_found(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(trained, Progress(2, best_loss=0.5, best_step=2, tokens=80, recent_losses=(1.5, 2.5)))
    path = tmp_path / "step-000002" / "state.json"
    whole, passed = path.read_bytes(), []
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            checkpoints.restore_newest(trained)
        except CheckpointError:
            continue
        passed.append(place)

    assert passed == []


def test_b1_a_state_sealed_anew_is_held_against_its_folder_and_files(trained: MasterWeights, tmp_path: Path) -> None:
    """What a hash of its own cannot tell: another step's folder, no files named, and a file that is not named."""
    checkpoints = Checkpoints(tmp_path / "a", keep=2)
    folder = checkpoints.save(trained, Progress(2))
    content = unsealed((folder / "state.json").read_bytes())

    def refused(**other: Any) -> str:
        (folder / "state.json").write_text(sealed(content | other), encoding="utf-8")
        with pytest.raises(CheckpointError, match="damaged") as caught:
            checkpoints.restore_newest(trained)
        return str(caught.value.found)

    assert "of step 3, and the folder of step 2" in refused(progress=content["progress"] | {"steps_done": 3})
    assert "names no file" in refused(sha256={})
    shutil.copy(folder / "masters.safetensors", folder / "more.safetensors")
    assert "more.safetensors is no file of this checkpoint" in refused()


def test_b2_damaged_best_weights_are_met_when_the_run_goes_on(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save_best(trained, Progress(1, best_loss=0.5, best_step=1))
    checkpoints.save(trained, Progress(3, best_loss=0.5, best_step=1))
    spoil(tmp_path / "best-000001" / "masters.safetensors")

    for what in ("damaged", "gone"):
        if what == "gone":
            shutil.rmtree(tmp_path / "best-000001")
        with pytest.raises(CheckpointError, match="best weights so far are damaged, or gone") as caught:
            checkpoints.restore_newest(trained)
        assert "--from step-000003" in str(caught.value.fix)

    said: list[str] = []
    progress = checkpoints.restore_newest(trained, chosen="step-000003", log=said.append)
    assert (progress.steps_done, progress.best_step, progress.best_loss) == (3, None, None)
    assert "of step 1, are left out" in said[0]


@pytest.mark.parametrize("what", ["damaged", "gone"])
def test_b2_best_weights_that_were_just_restored_are_written_again(
    trained: MasterWeights, tmp_path: Path, what: str
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save_best(trained, Progress(3, best_loss=0.5, best_step=3))
    checkpoints.save(trained, Progress(3, best_loss=0.5, best_step=3))
    if what == "damaged":
        spoil(tmp_path / "best-000003" / "masters.safetensors")
    else:
        shutil.rmtree(tmp_path / "best-000003")

    assert checkpoints.restore_newest(trained).best_step == 3
    assert checkpoints.restore_best(trained, step=3).steps_done == 3


def test_b2_the_offered_checkpoint_has_its_best_weights(trained: MasterWeights, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (1, 2, 3):
        checkpoints.save_best(trained, Progress(step, best_step=step))
        checkpoints.save(trained, Progress(step, best_step=step))
    checkpoints.save(trained, Progress(4, best_step=3))
    checkpoints.save(trained, Progress(5, best_step=3))
    spoil(tmp_path / "step-000005" / "masters.safetensors")
    spoil(tmp_path / "best-000003" / "masters.safetensors")

    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoints.restore_newest(trained)

    assert "--from step-000003" in str(caught.value.fix), "of step 4 the best are damaged; step 3 is its own best"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("best", [False, True])
def test_b13_weights_that_are_not_finite_are_never_saved(
    trained: MasterWeights, tmp_path: Path, bad: float, best: bool
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save_best(trained, Progress(1, best_step=1))
    checkpoints.save(trained, Progress(1, best_step=1))
    with torch.no_grad():
        next(iter(trained.masters.values())).view(-1)[3] = bad
    write = checkpoints.save_best if best else checkpoints.save

    with pytest.raises(TrainingError, match="no longer finite") as caught:
        write(trained, Progress(2, best_step=2))

    assert "step-000001" in str(caught.value.expected)
    assert names(tmp_path) == ["best-000001", "step-000001"]


def test_the_first_checkpoint_that_fails_offers_no_resume(
    trained: MasterWeights, tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)

    with files_at_most(200), pytest.raises(SaveError) as caught:
        checkpoints.save(trained, Progress(1))

    assert caught.value.fix == "free some space, then start the run again"


def spoil(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
