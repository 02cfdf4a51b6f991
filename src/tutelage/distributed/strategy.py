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
from tutelage.model.adapters.lora import BASE_CHANGING_INITS
from tutelage.model.architecture import PLAIN, Architecture
from tutelage.model.base_outputs import HeldToBase
from tutelage.model.loss import row_loss
from tutelage.model.precision import DTYPES, Precision, cast_model
from tutelage.model.token_weights import WeighsTokens
from tutelage.types import PackedSequence

Parallel = Literal["auto", "shard", "replicate"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """The processes, and the FSDP root where the model is sharded over them; without one each has a replica.

    `architecture` is what was tried on the model; `held` says how replayed rows are held to the base, which no sharded
    model is.
    """

    process_group: ProcessGroup
    fsdp_root: FSDPRoot | None = None
    architecture: Architecture = PLAIN
    held: HeldToBase | None = None

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

    def row_loss(
        self, model: Any, row: PackedSequence, *, token_weights: WeighsTokens | None = None
    ) -> tuple[torch.Tensor, int]:
        """The summed loss of a row and how many tokens it is of; `token_weights` weight its gradient."""
        given: Any = {"architecture": self.architecture, "token_weights": token_weights}
        if self.fsdp_root is not None:
            return self.fsdp_root.row_loss(model, row, **given)
        return row_loss(model, row, **given, held=self.held)


def place_model(
    model: Any, process_group: ProcessGroup, *, device: str, precision: Precision, sharded: bool
) -> Strategy:
    """Shard the model over several processes, or leave it whole, in fp32 where it computes in fp32.

    Afterwards the trainable parameters are fp32 and their own master weights, unless replicas compute in a narrower
    precision.
    """
    if process_group.size > 1 and sharded:
        fsdp_root, _ = shard(model, process_group=process_group, device=device, precision=precision)
        return Strategy(process_group, fsdp_root)
    if precision == "fp32":
        cast_model(model, precision)
    return Strategy(process_group)


def is_sharded(
    parallel: Parallel,
    *,
    optimizer: str,
    method: str,
    init: str,
    modules_to_save: Sequence[str] = (),
    l2_to_base: float | None = None,
    kl_to_base: float | None = None,
) -> bool:
    """Whether the model would be sharded over several processes: as set, or where all other settings allow it.

    Raises:
        ConfigError: it is asked for, and the optimizer looks at more than one number at a time; the method keeps 4-bit
            blocks or virtual tokens; modules are trained whole beside an adapter; it starts from a changed base, or
            from data; pairs are pulled to the base, which takes both of a pair; or
            replayed rows are held to it, which takes another forward on one process alone.
    """
    requirements = [
        ("train.optimizer", optimizer, optimizer in SHARDED_OPTIMIZERS, '= "adamw"'),
        ("model.method", method, method in SHARDED_METHODS, '= "lora"'),
        ("lora.modules_to_save", ", ".join(modules_to_save), not modules_to_save, "= []"),
        ("train.l2_to_base", str(l2_to_base), l2_to_base is None or method == "full", "left out"),
        ("train.kl_to_base", str(kl_to_base), kl_to_base is None, "left out"),
        ("lora.init", init, not init.startswith((*BASE_CHANGING_INITS, *DATA_DRIVEN_INITS)), '= "default"'),
    ]
    for setting, value, supported, supported_value in requirements:
        if supported:
            continue
        if parallel == "shard":
            raise ConfigError(
                f"{value} does not work on a model that is sharded over processes",
                where=setting,
                found='model.parallel = "shard"',
                expected=f'model.parallel = "replicate", or {setting} {supported_value}',
                fix='leave model.parallel out: where it cannot be "shard", each process keeps all of the model',
            )
        return False
    return parallel != "replicate"


def saved_dtype(stored_as: torch.dtype, precision: Precision) -> torch.dtype:
    """Save in the wider of the stored and the computed precision, so that the folder is the model that was measured."""
    return torch.promote_types(stored_as, DTYPES[precision])
