"""Held-out loss: the training loss, without gradients, on rows that are never trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tutelage.model import loss
from tutelage.model.ranks import ALONE, Ranks
from tutelage.pack import dealt
from tutelage.types import Row

RowLoss = Callable[[Any, Row], tuple[torch.Tensor, int]]


@torch.no_grad()  # not inference_mode: FSDP2 keeps what it gathers here, and could not train with it
def heldout_loss(model: Any, rows: Sequence[Row], *, row_loss: RowLoss = loss.row_loss, ranks: Ranks = ALONE) -> float:
    """Mean cross-entropy over all trained tokens of `rows`, in nats; the model must attend inside documents.

    Args:
        model: is put into evaluation mode.
        rows: the same on all processes, which share them.
        row_loss: (model, row) -> (summed loss, trained tokens).
        ranks: the processes.
    """
    model.eval()
    total, count = 0.0, 0
    for row in rows if ranks.size == 1 else dealt(rows, rank=ranks.rank, ranks=ranks.size):
        row_sum, row_count = row_loss(model, row)
        total, count = total + row_sum.item(), count + row_count
    all_total, all_count = ranks.sum(total, count)
    return all_total / all_count
