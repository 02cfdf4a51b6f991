"""How a run uses its processes: one alone, or several that share a sharded model and the rows of every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.measure import Exam, Sitting, sit
from tutelage.model.adapt import CHANGES_THE_BASE
from tutelage.model.load import DTYPES, Precision, compute_in, device_here
from tutelage.model.loss import row_loss
from tutelage.model.ranks import Ranks
from tutelage.model.shard import Door, shard
from tutelage.pack import Order, batches
from tutelage.render import Renderer
from tutelage.train.masters import Masters
from tutelage.train.prefetch import ahead
from tutelage.types import Batch, Example, Row

SHARDED_OPTIMIZERS = ("adamw",)
"""Optimizers that step each number by itself; the others look at blocks or whole matrices, which are cut apart."""
SHARDED_METHODS = ("full", "lora")
"""Methods whose weights can be cut apart and gathered again; tests/train/test_processes.py tries them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The processes, and the door to the model where it is sharded over them."""

    ranks: Ranks
    door: Door | None = None

    def row_loss(self, model: Any, row: Row) -> tuple[torch.Tensor, int]:
        """The summed loss of a row and how many tokens it is of."""
        return row_loss(model, row) if self.door is None else self.door.row_loss(model, row)

    def batches(
        self,
        examples: Sequence[Example],
        order: Order,
        *,
        row_tokens: int,
        start_step: int,
        share_prefixes: bool,
        together: bool,
        within: int | None = None,
    ) -> Iterator[Batch]:
        """This process's share of every batch; those for a GPU are made ahead."""
        made = batches(
            examples,
            order,
            row_tokens=row_tokens,
            start_step=start_step,
            share_prefixes=share_prefixes,
            together=together,
            rank=self.ranks.rank,
            ranks=self.ranks.size,
            within=within,
        )
        return ahead(made, pin=True) if device_here() == "cuda" else made

    def heldout(self, model: Any, optimiser: Masters, rows: Sequence[Row]) -> Callable[[], float]:
        """A function that measures the loss on `rows` of what is kept so far."""

        def measure() -> float:
            with optimiser.measured():
                return heldout_loss(model, rows, row_loss=self.row_loss, ranks=self.ranks)

        return measure

    def sit(self, model: Any, renderer: Renderer, exam: Exam, *, done: Callable[[int], None]) -> Sitting:
        """Measure the model; every process gets all that is found."""
        return sit(
            model,
            renderer,
            exam,
            done=lambda replies: done(replies * self.ranks.size),
            row_loss=self.row_loss,
            whole=nullcontext if self.door is None else self.door.whole,
            ranks=self.ranks,
        )

    def record_in(self, path: Path) -> Path | None:
        """Where this process records its steps: all do the same, and one of them is written down."""
        return path if self.ranks.is_main else None


def placed(model: Any, ranks: Ranks, *, precision: Precision) -> Engine:
    """Shard the model where there are several processes; alone, make it fp32 where it computes in fp32.

    Afterwards what learns is fp32 and its own master, unless one process computes in a narrower precision.
    """
    if ranks.size == 1:
        if precision == "fp32":
            compute_in(model, precision)
        return Engine(ranks)
    door, _ = shard(model, ranks=ranks, device=device_here(), precision=precision)
    return Engine(ranks, door)


def require_sharded(optimizer: str, method: str, init: str, ranks: Ranks) -> None:
    """Fail early where what was asked for does not work on a model that is sharded over several processes.

    Raises:
        ConfigError: the optimizer looks at more than one number at a time; the method keeps 4-bit blocks or virtual
            tokens; or the adapter starts from a changed base.
    """
    if ranks.size == 1:
        return
    refused = [
        ("train.optimizer", optimizer, optimizer in SHARDED_OPTIMIZERS, "adamw"),
        ("model.method", method, method in SHARDED_METHODS, "lora"),
        ("lora.init", init, not init.startswith(CHANGES_THE_BASE), "default"),
    ]
    for where, found, works, instead in refused:
        if not works:
            raise ConfigError(
                f"{found} does not work on a model that is sharded over processes",
                where=where,
                found=f"{ranks.size} processes",
                expected=f'one process, or {where} = "{instead}"',
                fix="start it without torchrun and without --processes, or change the setting",
            )


def kept_as(stored_as: torch.dtype, precision: Precision) -> torch.dtype:
    """On disk no narrower than what was computed with, so that the folder is the model that was measured."""
    return torch.promote_types(stored_as, DTYPES[precision])
