"""Shards a model over the processes of a run with FSDP2: each holds a part of every parameter.

Source: Zhao et al. 2023 (PyTorch FSDP), in its second form, `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tutelage.model.anatomy import PLAIN, Anatomy
from tutelage.model.layers import decoder_layers
from tutelage.model.load import DTYPES, Precision
from tutelage.model.loss import row_loss
from tutelage.model.ranks import Ranks
from tutelage.types import Row

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


class Door(torch.nn.Module):
    """The way into a sharded model: what is done with it happens while its outer parameters are whole.

    FSDP2 gathers the parameters of a module for its `forward` alone. Our loss uses embedding and output head outside of
    the model's own forward, so the model is put into a module whose forward is whatever is asked for.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[Any], T]) -> T:
        """Call `work` with the model; embedding, last norm and head are whole, each layer in its own forward."""
        return work(self.model)

    def row_loss(self, _model: Any, row: Row, *, anatomy: Anatomy = PLAIN) -> tuple[torch.Tensor, int]:
        """`model.loss.row_loss` of the model behind this door; every process must come here equally often."""
        loss: tuple[torch.Tensor, int] = self(lambda model: row_loss(model, row, anatomy=anatomy))
        if not torch.is_grad_enabled():  # no backward pass will
            self.shut()
        return loss

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All parameters are whole on every process, in the precision of the computation, and need no other process.

        Processes may do different things in the block; they must enter and leave it together.
        """
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

    def shut(self) -> None:
        """Free what is whole, and forget the order of forward passes that no backward pass will follow.

        Until then a change of the sharded parameters would go unseen, and processes would not gather alike.
        """
        self._parts()[0].reset_iter_state()

    def _parts(self) -> list[FSDPModule]:
        return [one for one in self.modules() if isinstance(one, FSDPModule)]


def shard(model: Any, *, ranks: Ranks, device: str, precision: Precision) -> tuple[Door, Sharded]:
    """Shard every decoder layer, and what is left (embedding, last norm, head) as one outer piece that stays gathered.

    Parameters that learn become fp32, sharded, and are their own masters; frozen ones are kept in `precision`. Both are
    computed with in `precision`. Gradients are summed over processes, not averaged, in fp32.

    Args:
        model: a transformers causal language model, with or without PEFT around it, on the CPU; what learns has
            `requires_grad`.
        ranks: the processes, joined.
        device: "cpu" or "cuda".
        precision: of the computation.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else DTYPES[precision])
    mesh = init_device_mesh(device, (ranks.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if precision == "fp32" else DTYPES[precision], reduce_dtype=torch.float32
    )
    _, layers = decoder_layers(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    door = Door(model)
    fully_shard(door, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    parts = [one for one in door.modules() if isinstance(one, FSDPModule)]
    for part in parts:
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # a plain sum: gloo has no scaled one
    kept = sum(_local(one).numel() * one.element_size() for one in model.parameters())
    return door, Sharded(ranks.size, len(parts), kept)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
