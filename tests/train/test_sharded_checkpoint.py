"""Checkpoints of several processes: written as one, refused as one, read by any number of processes."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tutelage.distributed.failure import end_at_once
from tutelage.distributed.process_group import ALONE, Ranks, joined, ranks_here, whole_tensor
from tutelage.errors import CheckpointError, SaveError
from tutelage.optim.master_weights import Masters
from tutelage.optim.optimizers import adamw
from tutelage.train.checkpoint import Checkpoints, Progress

Work = Callable[[Ranks, Path], None]


def learner(ranks: Ranks) -> Masters:
    """A small model after two steps; its first weight has three rows, which two and four processes share unevenly."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 7))
    if ranks.size > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (ranks.size,)))
    masters = Masters(model, build=adamw(weight_decay=0.1, betas=(0.9, 0.999), epsilon=1e-8), shared=True)
    for _ in range(2):
        model(torch.ones(2, 5)).square().sum().backward()
        masters.step(0.1, max_gradient_norm=1.0)
    return masters


def whole(masters: Masters) -> dict[str, torch.Tensor]:
    tensors = {**masters.masters, **masters.state()}
    return {name: whole_tensor(one.detach()).clone() for name, one in tensors.items()}


def save(ranks: Ranks, folder: Path) -> None:
    masters = learner(ranks)
    Checkpoints(folder, keep=2, ranks=ranks).save(masters, Progress(2, tokens=9))
    expected = whole(masters)
    if ranks.is_main:
        torch.save(expected, folder / "expected.pt")


def load(ranks: Ranks, folder: Path) -> None:
    masters = learner(ranks)
    with torch.no_grad():
        for one in masters.masters.values():
            one.mul_(0)
    masters.optimizers[0].state.clear()
    assert Checkpoints(folder, keep=2, ranks=ranks).restore_newest(masters) == Progress(2, tokens=9)
    expected, found = torch.load(folder / "expected.pt"), whole(masters)
    assert set(found) == set(expected)
    for name, one in expected.items():
        assert torch.equal(found[name], one), name


def save_where_one_disk_is_full(ranks: Ranks, folder: Path) -> None:
    masters, checkpoints = learner(ranks), Checkpoints(folder, keep=2, ranks=ranks)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    with pytest.raises(SaveError, match="could not be saved"):
        checkpoints.save(masters, Progress(3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.restore_newest(masters).steps_done == 2


def load_what_is_damaged(ranks: Ranks, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"damaged[\s\S]*shard-00002") as caught:
        Checkpoints(folder, keep=2, ranks=ranks).restore_newest(learner(ranks))
    assert caught.value.where == str(folder / "step-000002")


def see_each_other(ranks: Ranks, folder: Path) -> None:
    assert ranks.sum(ranks.rank + 0.5, 1) == (2.0, 2.0)
    assert ranks.any(ranks.rank == 1)
    assert not ranks.any(False)
    assert ranks.gather(f"process {ranks.rank}") == ["process 0", "process 1"]
    ranks.agree("settings", "the same")


def notice_other_settings(ranks: Ranks, folder: Path) -> None:
    from tutelage.errors import EngineError

    with pytest.raises(EngineError, match="process 1"):
        ranks.agree("settings", f"those of {ranks.rank}")


def follow_the_leader(ranks: Ranks, folder: Path) -> None:
    def work() -> int:
        file = folder / "prepared"
        if ranks.local_rank == 0:
            assert not file.exists()
            file.write_text("1", encoding="utf-8")
        return int(file.read_text(encoding="utf-8"))

    assert ranks.after_leader("data again", work) == 1


def _process(rank: int, size: int, port: int, work: Work, folder: Path) -> None:
    torch.set_num_threads(1)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})

    def meet() -> None:
        ranks = ranks_here()
        with joined(ranks, device="cpu"):
            work(ranks, folder)
            ranks.wait_for_all()  # one that leaves early would look like a crash to one that has just come

    end_at_once(meet)


def on(size: int, work: Work, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (size, port, work, folder), nprocs=size)


def all_of_it(ranks: Ranks, folder: Path) -> None:
    """One start of the processes for everything, as starting them takes far longer than all the rest."""
    for work in (see_each_other, notice_other_settings, follow_the_leader):
        work(ranks, folder)
    load(ranks, folder / "by_one")
    ours = folder / "by_two"
    for work in (save, load, save_where_one_disk_is_full):
        work(ranks, ours)
    if ranks.is_main:
        assert sorted(one.name for one in ours.iterdir()) == ["expected.pt", "step-000002"]
        shutil.copytree(ours, folder / "damaged")
        shard = next((folder / "damaged" / "step-000002").glob("shard-00002*"))
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    ranks.wait_for_all()
    load_what_is_damaged(ranks, folder / "damaged")


def test_two_processes_write_read_and_refuse_as_one_and_any_number_reads_it(tmp_path: Path) -> None:
    for name in ("by_one", "by_two"):
        (tmp_path / name).mkdir()
    save(ALONE, tmp_path / "by_one")

    on(2, all_of_it, tmp_path)

    load(ALONE, tmp_path / "by_two")
    on(4, load, tmp_path / "by_two")


def test_alone_there_is_nobody_to_ask() -> None:
    assert ALONE.sum(1.5, 2) == (1.5, 2)
    assert ALONE.gather("one") == ["one"]
    assert ALONE.after_leader("data", lambda: 3) == 3
    assert ALONE.any(True)
    ALONE.wait_for_all()
