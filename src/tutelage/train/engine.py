"""How a run uses its processes: one alone, or several that share the rows of every step and perhaps the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch

from tutelage.config.method import LOOKS_AT_DATA
from tutelage.errors import ConfigError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.measure import Exam, Sitting, sit
from tutelage.model.adapt import CHANGES_THE_BASE
from tutelage.model.anatomy import PLAIN, Anatomy
from tutelage.model.load import DTYPES, Precision, compute_in, device_here
from tutelage.model.loss import row_loss
from tutelage.model.ranks import Ranks
from tutelage.model.shard import SHARDED_METHODS, SHARDED_OPTIMIZERS, Door, shard
from tutelage.pack import Order, batches
from tutelage.render import Renderer
from tutelage.train.masters import Masters
from tutelage.train.prefetch import ahead
from tutelage.types import Batch, Example, Row

Parallel = Literal["auto", "shard", "replicate"]


@dataclass(frozen=True, slots=True)
class Engine:
    """The processes, and the door to the model where it is sharded over them; without one each has all of it.

    `anatomy` is what was tried on the model.
    """

    ranks: Ranks
    door: Door | None = None
    anatomy: Anatomy = PLAIN

    @property
    def replicated(self) -> bool:
        """Whether several processes have all of the model, each for itself."""
        return self.ranks.size > 1 and self.door is None

    @property
    def layout(self) -> str:
        """What becomes of the model among the processes, for people; empty for one process."""
        if self.ranks.size == 1:
            return ""
        return f"{'whole on each of' if self.door is None else 'sharded over'} {self.ranks.size} processes"

    def row_loss(self, model: Any, row: Row) -> tuple[torch.Tensor, int]:
        """The summed loss of a row and how many tokens it is of."""
        if self.door is None:
            return row_loss(model, row, anatomy=self.anatomy)
        return self.door.row_loss(model, row, anatomy=self.anatomy)

    def batches(
        self,
        examples: Sequence[Example],
        order: Order,
        *,
        row_tokens: int,
        start_step: int,
        share_prefixes: bool,
        within: int | None = None,
    ) -> Iterator[Batch]:
        """This process's share of every batch, laid out as the model allows; those for a GPU are made ahead."""
        made = batches(
            examples,
            order,
            row_tokens=row_tokens,
            start_step=start_step,
            share_prefixes=share_prefixes and self.anatomy.shares_beginnings and not self.anatomy.draws_noise,
            together=self.anatomy.together,
            rank=self.ranks.rank,
            ranks=self.ranks.size,
            within=within,
        )
        return ahead(made, pin=True) if device_here() == "cuda" else made

    def heldout(
        self, model: Any, optimiser: Masters, rows: Sequence[Row], *, say: Callable[[str], None]
    ) -> Callable[[], float]:
        """A function that measures the loss on `rows` of what is kept so far."""

        def measure() -> float:
            with optimiser.measured():
                return heldout_loss(model, rows, row_loss=self.row_loss, ranks=self.ranks, say=say)

        return measure

    def sit(
        self, model: Any, renderer: Renderer, exam: Exam, *, done: Callable[[int], None], say: Callable[[str], None]
    ) -> Sitting:
        """Measure the model; every process gets all that is found. What fails is left out, and named in the sitting."""
        return sit(
            model,
            renderer,
            exam,
            done=lambda replies: done(replies * self.ranks.size),
            row_loss=self.row_loss,
            attention=self.anatomy.attention,
            whole=nullcontext if self.door is None else self.door.whole,
            ranks=self.ranks,
            excused=True,
            say=say,
        )

    def record_in(self, path: Path) -> Path | None:
        """Where this process records its steps: all do the same, and one of them is written down."""
        return path if self.ranks.is_main else None


def placed(model: Any, ranks: Ranks, *, precision: Precision, sharded: bool) -> Engine:
    """Shard the model over several processes, or leave it whole, in fp32 where it computes in fp32.

    Afterwards what learns is fp32 and its own master, unless whole models compute in a narrower precision.
    """
    if ranks.size > 1 and sharded:
        door, _ = shard(model, ranks=ranks, device=device_here(), precision=precision)
        return Engine(ranks, door)
    if precision == "fp32":
        compute_in(model, precision)
    return Engine(ranks)


def start_alike(model: Any, optimiser: Masters, ranks: Ranks) -> None:
    """Give whole models on several processes the same start: what learns is that of the main one.

    Raises:
        EngineError: the frozen weights differ between processes.
    """
    frozen = (one for one in model.parameters() if not one.requires_grad)
    # Bytes are summed, not numbers: that sum is exact, and so the same on any processor.
    sums = (int(one.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64)) for one in frozen)
    ranks.agree("weights of the base model", sha256(repr(list(sums)).encode()).hexdigest()[:16])
    averages = () if optimiser.average is None else optimiser.average.weights.values()
    ranks.follow_main([one.detach() for one in (*optimiser.masters.values(), *averages)])
    optimiser.publish()


def shards(asked: Parallel, *, optimizer: str, method: str, init: str, whole: Sequence[str] = ()) -> bool:
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
        ("lora.init", init, not init.startswith((*CHANGES_THE_BASE, *LOOKS_AT_DATA)), '"default"'),
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


def kept_as(stored_as: torch.dtype, precision: Precision) -> torch.dtype:
    """Save in the wider of the stored and the computed precision, so that the folder is the model that was measured."""
    return torch.promote_types(stored_as, DTYPES[precision])
