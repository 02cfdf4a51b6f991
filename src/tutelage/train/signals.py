"""Ctrl-C and SIGTERM finish the step and save; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests(announce: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Catch SIGINT and SIGTERM while the block runs; yields a function that says whether one came.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        announce(f"{signal.Signals(number).name}: finishing this step, then saving. Once more to stop at once.")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(received)
        return
    previous_handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
