"""Held-out loss: the training loss, without gradients, on rows that are never trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import FitError
from tutelage.model import loss
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.pack import split_over_ranks
from tutelage.pack.splitting import split_rows
from tutelage.types import PackedSequence

RowLoss = Callable[[Any, PackedSequence], tuple[torch.Tensor, int]]


def heldout_loss(
    model: Any,
    rows: Sequence[PackedSequence],
    *,
    row_loss: RowLoss = loss.row_loss,
    process_group: ProcessGroup = SINGLE,
    log: Callable[[str], None] = lambda _: None,
) -> float:
    """Mean cross-entropy over all trained tokens of `rows`, in nats; the model must attend as it was trained.

    Where memory is too small for a row, the loss is taken again with rows of at most half the tokens of the longest,
    divided between documents: the same number, up to rounding.

    Args:
        model: is put into evaluation mode.
        rows: the same on all processes, which share them.
        row_loss: (model, row) -> (summed loss, trained tokens).
        process_group: the processes.
        log: told of smaller rows.

    Raises:
        FitError: a document alone is too large for the memory of a process; all of them raise it.
        CollectiveError: on all of several processes, as one could not compute a row.
    """
    while True:
        try:
            return _mean_loss(model, rows, row_loss, process_group)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not inside the except block: until it ends, the error keeps what the failed pass had allocated.
        release_memory()
        longest = max(rows, key=lambda row: len(row.ids))
        smaller = split_rows(rows, len(longest.ids) // 2)
        if len(smaller) == len(rows):
            raise FitError(
                "One held-out example alone does not fit in memory",
                where=", ".join(map(str, longest.addresses)),
                found=f"{len(longest.ids)} tokens in a row of its own",
                expected="room for its forward pass",
                fix=f"start a new run with pack.max_seq_length below {len(longest.ids)}, or leave this row out of "
                "the data",
            )
        rows = smaller
        log(f"Memory ran out in the held-out loss: it is taken again with rows of {len(longest.ids) // 2:,} tokens")


@torch.no_grad()  # not inference_mode: FSDP2 keeps what it gathers here, and could not train with it
def _mean_loss(model: Any, rows: Sequence[PackedSequence], row_loss: RowLoss, process_group: ProcessGroup) -> float:
    model.eval()
    total, count = 0.0, 0
    for row in (
        rows
        if process_group.size == 1
        else split_over_ranks(rows, rank=process_group.rank, world_size=process_group.size)
    ):
        row_sum, row_count = collective_call(process_group, partial(_row_sum, model, row, row_loss))
        total, count = total + row_sum, count + row_count
    all_total, all_count = process_group.sum(total, count)
    return all_total / all_count


def _row_sum(model: Any, row: PackedSequence, row_loss: RowLoss) -> tuple[float, int]:
    row_sum, row_count = row_loss(model, row)
    return row_sum.item(), row_count
