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

from tutelage.distributed.failure import exit_without_teardown
from tutelage.distributed.process_group import SINGLE, ProcessGroup, full_tensor, open_process_group, process_group_here
from tutelage.errors import CheckpointError, SaveError
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.train.checkpoint import Checkpoints, Progress

Workload = Callable[[ProcessGroup, Path], None]


def train_state(process_group: ProcessGroup) -> MasterWeights:
    """A small model after two steps; its first weight has three rows, which two and four processes share unevenly."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 7))
    if process_group.size > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (process_group.size,)))
    masters = MasterWeights(model, build=adamw(weight_decay=0.1, betas=(0.9, 0.999), epsilon=1e-8), shared=True)
    for _ in range(2):
        model(torch.ones(2, 5)).square().sum().backward()
        masters.step(0.1, max_grad_norm=1.0)
    return masters


def whole(masters: MasterWeights) -> dict[str, torch.Tensor]:
    tensors = {**masters.masters, **masters.state()}
    return {name: full_tensor(one.detach()).clone() for name, one in tensors.items()}


def save(process_group: ProcessGroup, folder: Path) -> None:
    masters = train_state(process_group)
    Checkpoints(folder, keep=2, process_group=process_group).save(masters, Progress(2, tokens=9))
    expected = whole(masters)
    if process_group.is_main:
        torch.save(expected, folder / "expected.pt")


def load(process_group: ProcessGroup, folder: Path) -> None:
    masters = train_state(process_group)
    with torch.no_grad():
        for one in masters.masters.values():
            one.mul_(0)
    masters.optimizers[0].state.clear()
    assert Checkpoints(folder, keep=2, process_group=process_group).restore_newest(masters) == Progress(2, tokens=9)
    expected, found = torch.load(folder / "expected.pt"), whole(masters)
    assert set(found) == set(expected)
    for name, one in expected.items():
        assert torch.equal(found[name], one), name


def save_where_one_disk_is_full(process_group: ProcessGroup, folder: Path) -> None:
    masters, checkpoints = train_state(process_group), Checkpoints(folder, keep=2, process_group=process_group)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if process_group.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    with pytest.raises(SaveError, match="could not be saved"):
        checkpoints.save(masters, Progress(3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.restore_newest(masters).steps_done == 2


def load_what_is_damaged(process_group: ProcessGroup, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"damaged[\s\S]*shard-00002") as caught:
        Checkpoints(folder, keep=2, process_group=process_group).restore_newest(train_state(process_group))
    assert caught.value.where == str(folder / "step-000002")


def see_each_other(process_group: ProcessGroup, folder: Path) -> None:
    assert process_group.sum(process_group.rank + 0.5, 1) == (2.0, 2.0)
    assert process_group.any(process_group.rank == 1)
    assert not process_group.any(False)
    assert process_group.gather(f"process {process_group.rank}") == ["process 0", "process 1"]
    process_group.require_equal("settings", "the same")


def notice_other_settings(process_group: ProcessGroup, folder: Path) -> None:
    from tutelage.errors import EngineError

    with pytest.raises(EngineError, match="process 1"):
        process_group.require_equal("settings", f"those of {process_group.rank}")


def follow_the_leader(process_group: ProcessGroup, folder: Path) -> None:
    def work() -> int:
        file = folder / "prepared"
        if process_group.local_rank == 0:
            assert not file.exists()
            file.write_text("1", encoding="utf-8")
        return int(file.read_text(encoding="utf-8"))

    assert process_group.local_main_first("data again", work) == 1


def _process(rank: int, size: int, port: int, work: Workload, folder: Path) -> None:
    torch.set_num_threads(1)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})

    def meet() -> None:
        process_group = process_group_here()
        with open_process_group(process_group, device="cpu"):
            work(process_group, folder)
            process_group.barrier()  # one that leaves early would look like a crash to one that has just come

    exit_without_teardown(meet)


def on(size: int, work: Workload, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (size, port, work, folder), nprocs=size)


def all_of_it(process_group: ProcessGroup, folder: Path) -> None:
    """One start of the processes for everything, as starting them takes far longer than all the rest."""
    for work in (see_each_other, notice_other_settings, follow_the_leader):
        work(process_group, folder)
    load(process_group, folder / "by_one")
    ours = folder / "by_two"
    for work in (save, load, save_where_one_disk_is_full):
        work(process_group, ours)
    if process_group.is_main:
        assert sorted(path.name for path in ours.iterdir()) == ["expected.pt", "step-000002"]
        shutil.copytree(ours, folder / "damaged")
        shard = next((folder / "damaged" / "step-000002").glob("shard-00002*"))
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    process_group.barrier()
    load_what_is_damaged(process_group, folder / "damaged")


def test_two_processes_write_read_and_refuse_as_one_and_any_number_reads_it(tmp_path: Path) -> None:
    for name in ("by_one", "by_two"):
        (tmp_path / name).mkdir()
    save(SINGLE, tmp_path / "by_one")

    on(2, all_of_it, tmp_path)

    load(SINGLE, tmp_path / "by_two")
    on(4, load, tmp_path / "by_two")


def test_alone_there_is_nobody_to_ask() -> None:
    assert SINGLE.sum(1.5, 2) == (1.5, 2)
    assert SINGLE.gather("one") == ["one"]
    assert SINGLE.local_main_first("data", lambda: 3) == 3
    assert SINGLE.any(True)
    SINGLE.barrier()
