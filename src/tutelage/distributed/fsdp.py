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

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.failure import peer_is_gone
from tutelage.distributed.process_group import ProcessGroup
from tutelage.errors import EngineError, cause_of
from tutelage.model.architecture import PLAIN, Architecture
from tutelage.model.layers import decoder_layers
from tutelage.model.loss import row_loss
from tutelage.model.precision import DTYPES, Precision
from tutelage.model.refusals import FAILURES
from tutelage.model.token_weights import WeighsTokens
from tutelage.types import PackedSequence

T = TypeVar("T")

SHARDED_OPTIMIZERS = ("adamw",)
"""Optimizers that step each number by itself; the others look at blocks or whole matrices, which are cut apart."""
SHARDED_METHODS = ("full", "lora")
"""Methods whose weights can be cut apart and gathered again; tests/train/test_processes.py tries them."""


@dataclass(frozen=True, slots=True)
class ShardingSummary:
    """What was sharded: over how many processes, in how many FSDP modules, and the bytes of this process's shards."""

    processes: int
    blocks: int
    shard_bytes: int


class _RecordedAllGather(DefaultAllGather):
    """PyTorch's own all-gather of one FSDP module, recorded before it meets the other processes."""

    def __init__(self, module_index: int, gathered: list[int]) -> None:
        self.module_index, self.gathered = module_index, gathered

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: torch.distributed.ProcessGroup,
        async_op: bool = False,
    ) -> torch.distributed.Work | None:
        self.gathered.append(self.module_index)
        return super().__call__(output_tensor, input_tensor, group, async_op)


class FSDPRoot(torch.nn.Module):
    """The root module of a sharded model: its outer parameters are unsharded while work is done with it.

    FSDP2 gathers the parameters of a module for its `forward` alone. Our loss uses embedding and output head outside of
    the model's own forward, so the model is put into a module whose forward is whatever is asked for.

    Args:
        model: to be sharded.
        process_group: the processes.
        compute_dtype: dtype of gathered parameters; None for their own.
    """

    def __init__(
        self, model: torch.nn.Module, process_group: ProcessGroup, *, compute_dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.model = model
        self._process_group = process_group
        self._compute_dtype = compute_dtype
        self._gathered: list[int] = []
        self._gather_order: Sequence[int] = ()

    def record_gathers(self) -> None:
        """From now on record the FSDP modules that a row gathers; call it once all are sharded."""
        for index, module in enumerate(self._fsdp_modules()):
            module.set_custom_all_gather(_RecordedAllGather(index, self._gathered))
        self._gather_order = range(len(self._fsdp_modules()))

    def forward(self, work: Callable[[Any], T]) -> T:
        """Call `work` with the model; embedding, last norm and head are whole, each layer in its own forward."""
        return work(self.model)

    def row_loss(
        self,
        _model: Any,
        row: PackedSequence,
        *,
        architecture: Architecture = PLAIN,
        token_weights: WeighsTokens | None = None,
    ) -> tuple[torch.Tensor, int]:
        """`model.loss.row_loss` of the sharded model; every process must call this equally often.

        Without gradients a row that fails on one process leaves the others as if it had not.

        Raises:
            EngineError: it failed, and this process cannot go on with the others.
        """
        self._gathered.clear()
        if torch.is_grad_enabled():
            with_gradient: tuple[torch.Tensor, int] = self(
                lambda model: row_loss(model, row, architecture=architecture, token_weights=token_weights)
            )
            return with_gradient
        try:
            loss: tuple[torch.Tensor, int] = self(
                lambda model: row_loss(model, row, architecture=architecture, token_weights=token_weights)
            )
        except FAILURES as error:
            if not peer_is_gone(error):
                traceback.clear_frames(error.__traceback__)  # they hold what the row had allocated
                self._gather_remaining()
            raise
        self._gather_order = tuple(self._gathered)
        self.reshard_all()  # no backward pass will
        return loss

    def _gather_remaining(self) -> None:
        """Gather the modules that a failed row did not reach, one at a time: the other processes wait for them."""
        modules, remaining = self._fsdp_modules(), self._gather_order[len(self._gathered) :]
        try:
            self.reshard_all()
            for index in remaining:
                modules[index].unshard()
                modules[index].reshard()
            self.reshard_all()
        except FAILURES as error:
            if peer_is_gone(error):
                raise
            raise EngineError(
                f"Process {self._process_group.rank} failed in a row, and could not go on with the others",
                found=cause_of(error),
                expected="room for one layer of the model",
                fix="start a new run on machines with more memory, or with more processes",
            ) from error

    @contextmanager
    def unsharded(self) -> Iterator[None]:
        """All parameters are unsharded on every process, in the compute dtype, and need no other process.

        Processes may do different work in the block; they must enter and leave it together.

        Raises:
            MemoryError: on every process, as one has no room for all of it.
        """
        collective_call(self._process_group, self._require_memory)
        self(lambda _model: None)  # FSDP2 finds out which module is outermost in its first forward
        modules = self._fsdp_modules()
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            self.reshard_all()
            for module in modules[1:]:
                module.set_reshard_after_forward(True, recurse=False)

    def _require_memory(self) -> None:
        """Allocate the memory of the full model once: a process that fails in the gather leaves others waiting."""
        parameters = list(self.model.parameters())
        byte_count = sum(
            parameter.numel() * (self._compute_dtype or parameter.dtype).itemsize for parameter in parameters
        )
        torch.empty(byte_count, dtype=torch.uint8, device=parameters[0].device)

    def reshard_all(self) -> None:
        """Free unsharded parameters, and reset the order of forward passes that no backward pass will follow.

        Until then a change of the sharded parameters would go unseen, and processes would not gather alike.
        """
        self._fsdp_modules()[0].reset_iter_state()

    def _fsdp_modules(self) -> list[FSDPModule]:
        return [module for module in self.modules() if isinstance(module, FSDPModule)]


def shard(
    model: Any, *, process_group: ProcessGroup, device: str, precision: Precision
) -> tuple[FSDPRoot, ShardingSummary]:
    """Shard every decoder layer, and what is left (embedding, last norm, head) as one outer piece that stays gathered.

    Trainable parameters become fp32, sharded, and are their own master weights; frozen ones are kept in `precision`.
    Both are computed with in `precision`. Gradients are summed over processes, not averaged, in fp32.

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
    compute_dtype = None if precision == "fp32" else DTYPES[precision]
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    _, layers = decoder_layers(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fsdp_root = FSDPRoot(model, process_group, compute_dtype=compute_dtype)
    fully_shard(fsdp_root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    fsdp_modules = [module for module in fsdp_root.modules() if isinstance(module, FSDPModule)]
    for module in fsdp_modules:
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # a plain sum: gloo has no scaled one
    fsdp_root.record_gathers()
    local_bytes = sum(_local_shard(parameter).numel() * parameter.element_size() for parameter in model.parameters())
    return fsdp_root, ShardingSummary(process_group.size, len(fsdp_modules), local_bytes)


def _local_shard(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
