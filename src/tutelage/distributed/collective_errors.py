"""Work that each of several processes does by itself: where it fails on one, all raise, and go on alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tutelage.distributed.failure import peer_is_gone
from tutelage.distributed.process_group import ProcessGroup
from tutelage.errors import EngineError, cause_of
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.refusals import FAILURES

T = TypeVar("T")


class CollectiveError(RuntimeError):
    """Work failed on one of several processes, and each of them raises this."""


def collective_call(process_group: ProcessGroup, work: Callable[[], T]) -> T:
    """What `work` returns, once it has succeeded on every process; alone, it is just called.

    Args:
        process_group: every process must call this.
        work: where it fails, it has met the other processes as often as where it does not.

    Raises:
        MemoryError: on every process, as memory ran out on one of them.
        CollectiveError: on every process, as `work` failed otherwise on one of them; the message says where and why.
        EngineError: this process can no longer meet the others.
    """
    if process_group.size == 1:
        return work()
    failure: Exception | None = None
    try:
        value = work()
    except FAILURES as error:
        if isinstance(error, EngineError) or peer_is_gone(error):
            raise
        failure = error
    if not process_group.any(failure is not None):
        return value
    own_cause = (
        None if failure is None else (is_out_of_memory(failure), f"process {process_group.rank}: {cause_of(failure)}")
    )
    is_memory, cause = min(
        cause_on_rank for cause_on_rank in process_group.gather(own_cause) if cause_on_rank is not None
    )
    raise (MemoryError if is_memory else CollectiveError)(cause) from failure


def failures(process_group: ProcessGroup) -> tuple[type[Exception], ...]:
    """What to catch around work after which all processes go on: of several, only what every one of them raises."""
    return FAILURES if process_group.size == 1 else (CollectiveError, MemoryError)
