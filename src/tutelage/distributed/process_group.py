"""The processes of a run: how many there are, which one this is, and what they tell each other.

Processes meet in two stages. While data is prepared they share only torchrun's store, in which nothing times out; then
they join in a process group. Collectives must be reached by every process, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from tutelage.distributed.failure import fail_together
from tutelage.errors import EngineError

T = TypeVar("T")

PREPARATION_TIMEOUT = timedelta(days=7)
"""What the others wait for a machine's first process; torchrun ends them much earlier if that one fails."""
BUCKET_BYTES = 32 * 2**20
"""Tensors are added up in groups of this size: one message for many small ones, and no second copy of a large one."""
COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""What a collective waits: replies before and after training are shared out, and some take longer than others."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among those of the run: `rank` of `size`, and `local_rank` among those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _store: dist.Store | None = field(default=None, repr=False, compare=False)  # type: ignore[name-defined] # as below

    @property
    def is_main(self) -> bool:
        """Whether this process writes the records, the screen and the report."""
        return self.rank == 0

    def local_main_first(self, name: str, work: Callable[[], T]) -> T:
        """Do `work` on one process of each machine first; the others do it once that one has finished.

        No process group is needed, and nothing times out as long as the leader is at work.
        """
        if self._store is None:
            return work()
        key = f"{name}/{os.environ.get('GROUP_RANK', '0')}"
        if self.local_rank == 0:
            value = work()
            self._store.set(key, "done")
            return value
        self._store.wait([key], PREPARATION_TIMEOUT)
        return work()

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over all processes, in double precision."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return tuple(summed.tolist())

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one process."""
        return self.sum(float(flag))[0] > 0

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank."""
        if self.size == 1:
            return [value]
        gathered: list[T | None] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered  # type: ignore[return-value] # each place has been filled

    def require_equal(self, what: str, value: str) -> None:
        """Check that all processes hold the same.

        Raises:
            EngineError: one of them does not.
        """
        for rank, rank_value in enumerate(values := self.gather(value)):
            if rank_value != values[0]:
                raise EngineError(
                    f"The processes of this run do not have the same {what}",
                    where=f"process {rank}",
                    found=rank_value,
                    expected=f"{values[0]}, as process 0 has",
                    fix="give every machine the same files, settings and versions",
                )

    def all_reduce(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make each tensor its sum over all processes, the same bits on each; all must be of one dtype and device."""
        for bucket in _buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():
                dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def broadcast_from_main(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give each tensor the numbers that it has on the main process."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Return once every process has come here."""
        if self.size > 1:
            dist.barrier()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be sharded; every process must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


SINGLE = ProcessGroup()
"""The only process of its run."""


def processes_here() -> int:
    """How many processes this one was started with; asks the variables of `process_group_here`, and joins nothing."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_here() -> bool:
    """Whether this process is the main one of those; the same without joining."""
    return int(os.environ.get("RANK", "0")) == 0


def process_group_here() -> ProcessGroup:
    """What torchrun, or any launcher that sets the same variables, says about this process.

    Source: the variables of PyTorch's `env://` initialisation: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; LOCAL_RANK
    and GROUP_RANK from torchrun.
    """
    if processes_here() == 1:
        return SINGLE
    store, rank, size = next(rendezvous("env://"))
    return ProcessGroup(rank, size, int(os.environ.get("LOCAL_RANK", "0")), store)


@contextmanager
def open_process_group(process_group: ProcessGroup, *, device: str) -> Iterator[None]:
    """Open the process group for the block: gloo for the CPU and, where the model is on CUDA, NCCL beside it.

    Raises:
        EngineError: another process ended.
    """
    if process_group.size == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(process_group.local_rank)
    assert process_group._store is not None, "several processes meet through a store"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=dist.PrefixStore("tutelage", process_group._store),  # type: ignore[attr-defined] # exported, not declared
        rank=process_group.rank,
        world_size=process_group.size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    with fail_together(process_group._store, rank=process_group.rank):
        yield
    dist.destroy_process_group()  # not after an error: it could wait for what the others will never send
