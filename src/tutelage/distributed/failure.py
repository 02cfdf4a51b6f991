"""How a run of several processes ends: where one fails the others learn why and none waits, else each just leaves."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

import torch.distributed as dist

from tutelage.errors import EngineError, TutelageError
from tutelage.render.token_text import visible

KEY: Final = "ended"
POLL_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 30.0
"""What a process may take to end by itself once another has failed. Source: what torchrun grants after its SIGTERM."""
LAST_WORDS_SECONDS: Final = 5.0
"""What a process has left after SIGTERM: a launcher sends it to all as soon as one is gone, and each may just be saying
why it cannot go on."""
LEAVING_SECONDS: Final = 10.0
"""What the watcher may take to come back from the store, which answers at once as long as it is there."""


@contextmanager
def ending_together(store: dist.Store, *, rank: int, grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:  # type: ignore[name-defined] # exported, not declared
    """Tell the other processes where the block fails, and end this one where another failed and it does not notice.

    Gloo notices that a process is gone; NCCL would wait for it, in a call that no signal interrupts.

    Raises:
        EngineError: another process ended, so that a collective of this one broke off.
    """
    over = threading.Event()
    here = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    before = signal.signal(signal.SIGTERM, _end_soon) if here else None
    watcher = threading.Thread(target=_watch, args=(store.clone(), over, grace_seconds), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        told = _told(store)
        if told is None:
            with suppress(RuntimeError):  # the process that keeps the store may be gone
                store.set(KEY, f"process {rank}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        if broke_off(error):
            raise EngineError(
                f"Another process of this run ended, and process {rank} cannot go on without it",
                found=told or "it said nothing, as a process that the system kills for its memory",
                fix="do what its own error says; tutelage train --resume goes on from the newest checkpoint",
            ) from error
        raise
    else:
        if before is not None:  # a process that failed keeps the other until it has spoken
            signal.signal(signal.SIGTERM, before)
    finally:
        over.set()
        # A thread that is inside torch while the interpreter ends aborts the process: it must have left by then.
        watcher.join(LEAVING_SECONDS)


def _end_soon(number: int, _frame: FrameType | None) -> None:
    timer = threading.Timer(LAST_WORDS_SECONDS, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def end_at_once(run: Callable[[], None]) -> None:
    """Run, and have this process end without taking Python apart first; what `atexit` knows is still done.

    Gloo's threads outlive their process group where something still refers to it, as sharded parameters do. One that
    frees a tensor takes Python's lock, and where Python is being taken apart by then, the process aborts after its
    work is done: to torchrun a failure, for which it ends the other processes.
    """
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # before others are, so that it is the last
    try:
        run()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        raise


def _watch(store: dist.Store, over: threading.Event, grace_seconds: float) -> None:  # type: ignore[name-defined] # as above
    while not over.wait(POLL_SECONDS):
        told = _told(store)
        if told is not None and not over.wait(grace_seconds):
            shown = visible(told, line_ends=False)
            sys.stderr.write(f"error: another process of this run ended ({shown}); this one is stuck, and ends too\n")
            sys.stderr.flush()
            os._exit(1)


def _told(store: dist.Store) -> str | None:  # type: ignore[name-defined] # as above
    """What the first process that failed said; None while all is well."""
    try:
        return bytes(store.get(KEY)).decode() if store.check([KEY]) else None
    except RuntimeError:  # torch's errors of a connection are of this kind
        return "the process that keeps the store is gone"


def broke_off(error: BaseException) -> bool:
    """Whether a collective failed as another process is gone: gloo raises plain RuntimeErrors from its transport."""
    if isinstance(error, TutelageError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or "/gloo/transport/" in str(error)
