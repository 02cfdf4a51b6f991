"""Held-out loss: the training loss, without gradients, on rows that are never trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tutelage.model.loss import row_loss
from tutelage.types import Row


@torch.inference_mode()
def heldout_loss(model: Any, rows: Sequence[Row]) -> float:
    """Mean cross-entropy over all trained tokens of `rows`, in nats; the model must attend inside documents."""
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        row_sum, row_count = row_loss(model, row)
        total, count = total + row_sum.item(), count + row_count
    return total / count
