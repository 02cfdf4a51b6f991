"""Whom the training loop reports to: the disk, whoever watches, and whoever may ask it to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tutelage.runs.metrics_log import Record, Recorder

Watch = Callable[[Record], None]


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Listener:
    """Receives a record for each step and evaluation.

    Attributes:
        recorder: writes each to the disk.
        watch: shows each.
        asked_to_stop: looked at once a step.
    """

    recorder: Recorder
    watch: Watch
    asked_to_stop: Callable[[], bool] = _never
    _began: float = field(default_factory=time.perf_counter, init=False)

    @property
    def elapsed_seconds(self) -> float:
        """Since this was made, with what earlier parts of the run took."""
        return time.perf_counter() - self._began + self.recorder.previous_elapsed_seconds

    def tell(self, record: Record) -> None:
        """To the disk first: what a watcher shows is recorded."""
        self.recorder.write(record)
        self.watch(record)
