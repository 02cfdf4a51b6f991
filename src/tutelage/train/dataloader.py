"""This process's batches, made ahead of the step that needs them where a GPU can copy while it computes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import Any

import torch

from tutelage.distributed.strategy import Strategy
from tutelage.pack import Sampler, batches
from tutelage.types import Batch, Example, PackedSequence

BATCHES_AHEAD = 2
"""One that is being copied and one that waits: packing takes far less time than a step."""
LOOK_SECONDS = 0.1
"""How soon the thread notices that nobody wants more batches."""


def rank_batches(
    strategy: Strategy,
    examples: Sequence[Example],
    order: Sampler,
    *,
    row_tokens: int,
    start_step: int,
    share_prefixes: bool,
    device: str = "cpu",
    max_row_tokens: int | None = None,
    replayed_from: int | None = None,
) -> Iterator[Batch]:
    """This process's share of every batch, packed as the model allows; those for a GPU are made ahead.

    Args:
        strategy: its processes, and what was tried on the model.
        examples: of the run.
        order: which example comes in which step.
        row_tokens: most tokens of a row.
        start_step: steps already taken.
        share_prefixes: compute once what documents of a row begin with alike, where the model allows it.
        device: computes; "cuda" has the batches made ahead.
        max_row_tokens: a smaller budget of a row, once memory ran out.
        replayed_from: the first example that has rows apart from those of the task; None where they are mixed.
    """
    architecture = strategy.architecture
    packed_batches = batches(
        examples,
        order,
        row_tokens=row_tokens,
        start_step=start_step,
        share_prefixes=share_prefixes and architecture.shares_prefixes and not architecture.draws_noise,
        documents_isolated=architecture.documents_isolated,
        rank=strategy.process_group.rank,
        world_size=strategy.process_group.size,
        max_row_tokens=max_row_tokens,
        replayed_from=replayed_from,
    )
    return ahead(packed_batches, pin=True) if device == "cuda" else packed_batches


def ahead(batches: Iterable[Batch], *, pin: bool) -> Iterator[Batch]:
    """The same batches in the same order, made by a thread while earlier ones are computed.

    An error in the making is raised where its batch would have come. Close the iterator to end the thread early.

    Args:
        batches: must not depend on what happens between two of them.
        pin: put the rows into page-locked memory, so that a copy to a GPU needs nobody to wait.
    """
    queue: Queue[Batch | BaseException | None] = Queue(maxsize=BATCHES_AHEAD)
    unwanted = threading.Event()

    def hand_on(item: Batch | BaseException | None) -> None:
        while not unwanted.is_set():
            try:
                queue.put(item, timeout=LOOK_SECONDS)
            except Full:
                continue
            return

    def make() -> None:
        try:
            for batch in batches:
                hand_on(replace(batch, rows=tuple(map(pinned, batch.rows))) if pin else batch)
                if unwanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 raised again in the thread that asked for the batch
            hand_on(error)
        hand_on(None)

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while (item := _next(queue, thread)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        unwanted.set()
        thread.join()


def pinned(row: PackedSequence) -> PackedSequence:
    """The row with its arrays in page-locked memory; `torch.from_numpy` of one knows that it is."""
    arrays: dict[str, Any] = {
        name: torch.from_numpy(array).pin_memory().numpy()
        for name, array in (("ids", row.ids), ("weights", row.weights), ("positions", row.positions))
    }
    return replace(row, **arrays)


def _next(queue: Queue[Batch | BaseException | None], thread: threading.Thread) -> Batch | BaseException | None:
    while True:
        try:
            return queue.get(timeout=1.0)
        except Empty:
            assert thread.is_alive(), "the thread ends only after it has handed on an error or the end"
