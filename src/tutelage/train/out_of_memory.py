"""A step's forward and backward, tried with ever smaller rows until it fits in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from tutelage.distributed.process_group import ProcessGroup
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack.splitting import split_rows
from tutelage.runs.metrics_log import RowsRecord
from tutelage.train.abort import abort_out_of_memory, abort_out_of_memory_on_rank
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.listener import Listener
from tutelage.train.rng_state import restore_rng_state
from tutelage.types import Batch, PackedSequence

T = TypeVar("T")


class Computed(NamedTuple, Generic[T]):
    """The rows of a step as they were computed, what each gave, and the run's progress with their budget."""

    rows: Sequence[PackedSequence]
    sums: list[T]
    progress: Progress


def try_step(
    batch: Batch,
    forward_backward: Callable[[PackedSequence], T],
    *,
    rng: dict[str, Any],
    progress: Progress,
    optimizer: MasterWeights,
    checkpoints: Checkpoints,
    listener: Listener,
    process_group: ProcessGroup,
) -> Computed[T]:
    """Send every row of the batch forward and backward; where memory runs out, begin the step again with smaller rows.

    Args:
        batch: of the step.
        forward_backward: adds a row's gradient and gives its sums, such as that of the loss.
        rng: the random state that the step began with, and begins again with.
        progress: of the step before, with the most tokens of a row once memory ran out; saved where the run ends here.
        optimizer: its gradients are dropped where the step begins again.
        checkpoints: where to save.
        listener: told of smaller rows.
        process_group: the processes that share the batch.

    Raises:
        FitError: a row of one document does not fit; or memory ran out on one of several processes.
        SaveError: a checkpoint could not be written.
    """
    while True:
        rows, sums = split_rows(batch.rows, progress.row_tokens), list[T]()
        try:
            for row in rows:
                sums.append(forward_backward(row))
            return Computed(rows, sums, progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = rows[len(sums)]
            if process_group.size > 1:  # the others are in the middle of this row, and wait
                raise abort_out_of_memory_on_rank(
                    batch, too_large, process_group=process_group, checkpoints=checkpoints
                ) from error
        # Not inside the except block: until it ends, the error keeps what the failed pass had allocated.
        optimizer.zero_gradients()
        restore_rng_state(dict(rng))
        release_memory()
        if len(too_large.addresses) <= 1:
            raise abort_out_of_memory(batch, too_large, progress=progress, optimizer=optimizer, checkpoints=checkpoints)
        row_tokens = len(too_large.ids) // 2
        progress = replace(progress, row_tokens=row_tokens)
        listener.tell(RowsRecord(batch.step + 1, row_tokens, listener.elapsed_seconds))
