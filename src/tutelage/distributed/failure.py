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

FAILURE_KEY: Final = "ended"
POLL_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 30.0
"""What a process may take to end by itself once another has failed. Source: what torchrun grants after its SIGTERM."""
TERMINATION_GRACE_SECONDS: Final = 5.0
"""What a process has left after SIGTERM: a launcher sends it to all as soon as one is gone, and each may just be saying
why it cannot go on."""
WATCHER_JOIN_SECONDS: Final = 10.0
"""What the watcher may take to come back from the store, which answers at once as long as it is there."""


@contextmanager
def fail_together(store: dist.Store, *, rank: int, grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:  # type: ignore[name-defined] # exported, not declared
    """Tell the other processes where the block fails, and end this one where another failed and it does not notice.

    Gloo notices that a process is gone; NCCL would wait for it, in a call that no signal interrupts.

    Raises:
        EngineError: another process ended, so that a collective of this one broke off.
    """
    finished = threading.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    previous_handler = signal.signal(signal.SIGTERM, _exit_after_grace) if in_main_thread else None
    watcher = threading.Thread(target=_watch_for_failure, args=(store.clone(), finished, grace_seconds), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        message = _failure_message(store)
        if message is None:
            with suppress(RuntimeError):  # the process that keeps the store may be gone
                store.set(
                    FAILURE_KEY, f"process {rank}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
                )
        if peer_is_gone(error):
            raise EngineError(
                f"Another process of this run ended, and process {rank} cannot go on without it",
                found=message or "it said nothing, as a process that the system kills for its memory",
                fix="do what its own error says; tutelage train --resume goes on from the newest checkpoint",
            ) from error
        raise
    else:
        if previous_handler is not None:  # a process that failed keeps the other until it has spoken
            signal.signal(signal.SIGTERM, previous_handler)
    finally:
        finished.set()
        # A thread that is inside torch while the interpreter ends aborts the process: it must have left by then.
        watcher.join(WATCHER_JOIN_SECONDS)


def _exit_after_grace(signal_number: int, _frame: FrameType | None) -> None:
    timer = threading.Timer(TERMINATION_GRACE_SECONDS, os._exit, (128 + signal_number,))
    timer.daemon = True
    timer.start()


def exit_without_teardown(run: Callable[[], None]) -> None:
    """Run, and have this process end without taking Python apart first; what `atexit` knows is still done.

    Gloo's threads outlive their process group where something still refers to it, as sharded parameters do. One that
    frees a tensor takes Python's lock, and where Python is being taken apart by then, the process aborts after its
    work is done: to torchrun a failure, for which it ends the other processes.
    """
    status = 1

    def exit_now() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(exit_now)  # before others are, so that it is the last
    try:
        run()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        raise


def _watch_for_failure(store: dist.Store, finished: threading.Event, grace_seconds: float) -> None:  # type: ignore[name-defined] # as above
    while not finished.wait(POLL_SECONDS):
        message = _failure_message(store)
        if message is not None and not finished.wait(grace_seconds):
            visible_message = visible(message, line_ends=False)
            sys.stderr.write(
                f"error: another process of this run ended ({visible_message}); this one is stuck, and ends too\n"
            )
            sys.stderr.flush()
            os._exit(1)


def _failure_message(store: dist.Store) -> str | None:  # type: ignore[name-defined] # as above
    """The message of the first process that failed; None while none has."""
    try:
        return bytes(store.get(FAILURE_KEY)).decode() if store.check([FAILURE_KEY]) else None
    except RuntimeError:  # torch's errors of a connection are of this kind
        return "the process that keeps the store is gone"


def peer_is_gone(error: BaseException) -> bool:
    """Whether a collective failed as another process is gone: gloo raises plain RuntimeErrors from its transport."""
    if isinstance(error, TutelageError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or "/gloo/transport/" in str(error)
