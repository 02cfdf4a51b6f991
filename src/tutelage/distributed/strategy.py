"""How a run uses its processes: one alone, or several that share the rows of every step and perhaps the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tutelage.config.method import DATA_DRIVEN_INITS
from tutelage.distributed.fsdp import SHARDED_METHODS, SHARDED_OPTIMIZERS, FSDPRoot, shard
from tutelage.distributed.process_group import ProcessGroup
from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import CHANGES_THE_BASE
from tutelage.model.architecture import PLAIN, Architecture
from tutelage.model.load import DTYPES, Precision, cast_model, device_here
from tutelage.model.loss import row_loss
from tutelage.types import PackedSequence

Parallel = Literal["auto", "shard", "replicate"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """The processes, and the door to the model where it is sharded over them; without one each has all of it.

    `architecture` is what was tried on the model.
    """

    process_group: ProcessGroup
    fsdp_root: FSDPRoot | None = None
    architecture: Architecture = PLAIN

    @property
    def replicated(self) -> bool:
        """Whether several processes have all of the model, each for itself."""
        return self.process_group.size > 1 and self.fsdp_root is None

    @property
    def layout(self) -> str:
        """What becomes of the model among the processes, for people; empty for one process."""
        if self.process_group.size == 1:
            return ""
        return f"{'whole on each of' if self.fsdp_root is None else 'sharded over'} {self.process_group.size} processes"

    def row_loss(self, model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
        """The summed loss of a row and how many tokens it is of."""
        if self.fsdp_root is None:
            return row_loss(model, row, architecture=self.architecture)
        return self.fsdp_root.row_loss(model, row, architecture=self.architecture)


def place_model(model: Any, process_group: ProcessGroup, *, precision: Precision, sharded: bool) -> Strategy:
    """Shard the model over several processes, or leave it whole, in fp32 where it computes in fp32.

    Afterwards what learns is fp32 and its own master, unless whole models compute in a narrower precision.
    """
    if process_group.size > 1 and sharded:
        fsdp_root, _ = shard(model, process_group=process_group, device=device_here(), precision=precision)
        return Strategy(process_group, fsdp_root)
    if precision == "fp32":
        cast_model(model, precision)
    return Strategy(process_group)


def is_sharded(asked: Parallel, *, optimizer: str, method: str, init: str, whole: Sequence[str] = ()) -> bool:
    """Whether several processes would keep a part of the model each: as asked, or where all that was chosen allows it.

    Raises:
        ConfigError: it is asked for, and the optimizer looks at more than one number at a time; the method keeps 4-bit
            blocks or virtual tokens; modules are trained whole beside an adapter; or it starts from a changed base, or
            from data.
    """
    refused = [
        ("train.optimizer", optimizer, optimizer in SHARDED_OPTIMIZERS, '"adamw"'),
        ("model.method", method, method in SHARDED_METHODS, '"lora"'),
        ("lora.modules_to_save", ", ".join(whole), not whole, "[]"),
        ("lora.init", init, not init.startswith((*CHANGES_THE_BASE, *DATA_DRIVEN_INITS)), '"default"'),
    ]
    for where, found, works, instead in refused:
        if works:
            continue
        if asked == "shard":
            raise ConfigError(
                f"{found} does not work on a model that is sharded over processes",
                where=where,
                found='model.parallel = "shard"',
                expected=f'model.parallel = "replicate", or {where} = {instead}',
                fix='leave model.parallel out: where it cannot be "shard", each process keeps all of the model',
            )
        return False
    return asked != "replicate"


def saved_dtype(stored_as: torch.dtype, precision: Precision) -> torch.dtype:
    """Save in the wider of the stored and the computed precision, so that the folder is the model that was measured."""
    return torch.promote_types(stored_as, DTYPES[precision])
