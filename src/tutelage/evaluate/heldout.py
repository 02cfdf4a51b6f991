"""Held-out loss: the training loss, without gradients, on rows that are never trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import FitError
from tutelage.evaluate.token_losses import TokenLosses
from tutelage.model import loss
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.pack import split_over_ranks
from tutelage.pack.splitting import split_rows
from tutelage.types import Address, PackedSequence

RowLoss = Callable[..., tuple[torch.Tensor, int]]
"""(model, row) -> (summed loss, trained tokens); where losses are kept by document, with `token_weights` by name."""


@dataclass(frozen=True, slots=True)
class HeldoutLoss:
    """Of some rows.

    Attributes:
        mean: over all their trained tokens; None where it was not measured.
        documents: by address, the summed loss and the trained tokens; all parts of a row of data are one document.
    """

    mean: float | None = None
    documents: Mapping[Address, tuple[float, int]] = field(default_factory=dict)


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
    mean = _measured(model, rows, row_loss, process_group, log, by_document=False).mean
    assert mean is not None
    return mean


def heldout_by_document(
    model: Any,
    rows: Sequence[PackedSequence],
    *,
    row_loss: RowLoss = loss.row_loss,
    process_group: ProcessGroup = SINGLE,
    log: Callable[[str], None] = lambda _: None,
) -> HeldoutLoss:
    """`heldout_loss`, to the bit, and what each document had of it; the arguments are the same.

    Raises:
        FitError, CollectiveError: as there.
    """
    return _measured(model, rows, row_loss, process_group, log, by_document=True)


def _measured(
    model: Any,
    rows: Sequence[PackedSequence],
    row_loss: RowLoss,
    process_group: ProcessGroup,
    log: Callable[[str], None],
    *,
    by_document: bool,
) -> HeldoutLoss:
    while True:
        try:
            return _loss_of(model, rows, row_loss, process_group, by_document=by_document)
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
def _loss_of(
    model: Any, rows: Sequence[PackedSequence], row_loss: RowLoss, process_group: ProcessGroup, *, by_document: bool
) -> HeldoutLoss:
    model.eval()
    total, count = 0.0, 0
    documents: dict[Address, tuple[float, int]] = {}
    for row in (
        rows
        if process_group.size == 1
        else split_over_ranks(rows, rank=process_group.rank, world_size=process_group.size)
    ):
        token_losses = TokenLosses() if by_document else None
        row_sum, row_count = collective_call(process_group, partial(_row_sum, model, row, row_loss, token_losses))
        total, count = total + row_sum, count + row_count
        if token_losses is not None:
            _add(documents, token_losses.by_document(row))
    all_total, all_count = process_group.sum(total, count)
    if by_document and process_group.size > 1:
        gathered, documents = process_group.gather(documents), {}
        for rank_documents in gathered:
            _add(documents, rank_documents.items())
    return HeldoutLoss(all_total / all_count, documents)


def _row_sum(model: Any, row: PackedSequence, row_loss: RowLoss, token_losses: TokenLosses | None) -> tuple[float, int]:
    # As before where nothing is kept: what measures while a run trains has no other path.
    kept = {} if token_losses is None else {"token_weights": token_losses}
    row_sum, row_count = row_loss(model, row, **kept)
    return row_sum.item(), row_count


def _add(documents: dict[Address, tuple[float, int]], more: Iterable[tuple[Address, tuple[float, int]]]) -> None:
    for address, (nats, tokens) in more:
        earlier_nats, earlier_tokens = documents.get(address, (0.0, 0))
        documents[address] = earlier_nats + nats, earlier_tokens + tokens
