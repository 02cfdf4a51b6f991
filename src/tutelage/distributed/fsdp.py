"""Shards a model over the processes of a run with FSDP2: each holds a part of every parameter.

Source: Zhao et al. 2023 (PyTorch FSDP), in its second form, `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather
from torch.distributed.tensor import DTensor

from tutelage.distributed.collective_errors import agreed
from tutelage.distributed.failure import broke_off
from tutelage.distributed.process_group import ProcessGroup
from tutelage.errors import EngineError, cause_of
from tutelage.model.architecture import PLAIN, Architecture
from tutelage.model.layers import decoder_layers
from tutelage.model.load import DTYPES, Precision
from tutelage.model.loss import row_loss
from tutelage.model.refusals import FAILURES
from tutelage.types import PackedSequence

T = TypeVar("T")

SHARDED_OPTIMIZERS = ("adamw",)
"""Optimizers that step each number by itself; the others look at blocks or whole matrices, which are cut apart."""
SHARDED_METHODS = ("full", "lora")
"""Methods whose weights can be cut apart and gathered again; tests/train/test_processes.py tries them."""


@dataclass(frozen=True, slots=True)
class Sharded:
    """What was sharded: over how many processes, in how many pieces, and the bytes this process keeps of them."""

    processes: int
    blocks: int
    kept_bytes: int


class _NotedGather(DefaultAllGather):
    """PyTorch's own gathering of a part, which is written down before it meets the other processes."""

    def __init__(self, part: int, gathered: list[int]) -> None:
        self.part, self.gathered = part, gathered

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: torch.distributed.ProcessGroup,
        async_op: bool = False,
    ) -> torch.distributed.Work | None:
        self.gathered.append(self.part)
        return super().__call__(output_tensor, input_tensor, group, async_op)


class FSDPRoot(torch.nn.Module):
    """The way into a sharded model: what is done with it happens while its outer parameters are whole.

    FSDP2 gathers the parameters of a module for its `forward` alone. Our loss uses embedding and output head outside of
    the model's own forward, so the model is put into a module whose forward is whatever is asked for.

    Args:
        model: behind the door.
        process_group: the processes.
        computes_in: precision of what is gathered; None for that of the parameters.
    """

    def __init__(self, model: torch.nn.Module, process_group: ProcessGroup, *, computes_in: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self._ranks = process_group
        self._computes_in = computes_in
        self._gathered: list[int] = []
        self._order: Sequence[int] = ()

    def note_gathering(self) -> None:
        """From now on the parts that a row gathers are known; call it once all are sharded."""
        for number, part in enumerate(self._parts()):
            part.set_custom_all_gather(_NotedGather(number, self._gathered))
        self._order = range(len(self._parts()))

    def forward(self, work: Callable[[Any], T]) -> T:
        """Call `work` with the model; embedding, last norm and head are whole, each layer in its own forward."""
        return work(self.model)

    def row_loss(
        self, _model: Any, row: PackedSequence, *, architecture: Architecture = PLAIN
    ) -> tuple[torch.Tensor, int]:
        """`model.loss.row_loss` of the model behind this door; every process must come here equally often.

        Without gradients a row that fails on one process leaves the others as if it had not.

        Raises:
            EngineError: it failed, and this process cannot go on with the others.
        """
        self._gathered.clear()
        if torch.is_grad_enabled():
            with_gradient: tuple[torch.Tensor, int] = self(
                lambda model: row_loss(model, row, architecture=architecture)
            )
            return with_gradient
        try:
            loss: tuple[torch.Tensor, int] = self(lambda model: row_loss(model, row, architecture=architecture))
        except FAILURES as error:
            if not broke_off(error):
                traceback.clear_frames(error.__traceback__)  # they hold what the row had allocated
                self._gather_rest()
            raise
        self._order = tuple(self._gathered)
        self.shut()  # no backward pass will
        return loss

    def _gather_rest(self) -> None:
        """Gather what a row that failed did not come to, one part at a time: the others wait for it in theirs."""
        parts, rest = self._parts(), self._order[len(self._gathered) :]
        try:
            self.shut()
            for number in rest:
                parts[number].unshard()
                parts[number].reshard()
            self.shut()
        except FAILURES as error:
            if broke_off(error):
                raise
            raise EngineError(
                f"Process {self._ranks.rank} failed in a row, and could not go on with the others",
                found=cause_of(error),
                expected="room for one layer of the model",
                fix="start a new run on machines with more memory, or with more processes",
            ) from error

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All parameters are whole on every process, in the precision of the computation, and need no other process.

        Processes may do different things in the block; they must enter and leave it together.

        Raises:
            MemoryError: on every process, as one has no room for all of it.
        """
        agreed(self._ranks, self._require_room)
        self(lambda _model: None)  # FSDP2 finds out which module is outermost in its first forward
        parts = self._parts()
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            self.shut()
            for part in parts[1:]:
                part.set_reshard_after_forward(True, recurse=False)

    def _require_room(self) -> None:
        """Take the memory of the whole model once: who fails while it is gathered leaves the others waiting."""
        parameters = list(self.model.parameters())
        size = sum(parameter.numel() * (self._computes_in or parameter.dtype).itemsize for parameter in parameters)
        torch.empty(size, dtype=torch.uint8, device=parameters[0].device)

    def shut(self) -> None:
        """Free what is whole, and forget the order of forward passes that no backward pass will follow.

        Until then a change of the sharded parameters would go unseen, and processes would not gather alike.
        """
        self._parts()[0].reset_iter_state()

    def _parts(self) -> list[FSDPModule]:
        return [module for module in self.modules() if isinstance(module, FSDPModule)]


def shard(model: Any, *, process_group: ProcessGroup, device: str, precision: Precision) -> tuple[FSDPRoot, Sharded]:
    """Shard every decoder layer, and what is left (embedding, last norm, head) as one outer piece that stays gathered.

    Parameters that learn become fp32, sharded, and are their own masters; frozen ones are kept in `precision`. Both are
    computed with in `precision`. Gradients are summed over processes, not averaged, in fp32.

    Args:
        model: a transformers causal language model, with or without PEFT around it, on the CPU; what learns has
            `requires_grad`.
        process_group: the processes, joined.
        device: "cpu" or "cuda".
        precision: of the computation.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else DTYPES[precision])
    mesh = init_device_mesh(device, (process_group.size,))
    computes_in = None if precision == "fp32" else DTYPES[precision]
    policy = MixedPrecisionPolicy(param_dtype=computes_in, reduce_dtype=torch.float32)
    _, layers = decoder_layers(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fsdp_root = FSDPRoot(model, process_group, computes_in=computes_in)
    fully_shard(fsdp_root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    parts = [module for module in fsdp_root.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # a plain sum: gloo has no scaled one
    fsdp_root.note_gathering()
    kept = sum(_local(parameter).numel() * parameter.element_size() for parameter in model.parameters())
    return fsdp_root, Sharded(process_group.size, len(parts), kept)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
