"""A run's figures on their way to trackers: what each receives, and that none of them can end a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, cause_of
from tutelage.runs import folder as run_files
from tutelage.runs.metrics_log import Record
from tutelage.runs.trackers import Tracker, TrackerName, tracker

RecordListener = Callable[[Record], None]
FINAL_NUMBERS = ("steps", "epochs", "best_step", "tokens_per_second", "trained_tokens", "total_tokens", "peak_bytes")
"""Figures of `result.json` that are logged at the end, besides the measures before and after."""


class TrackerGroup:
    """Logs to several trackers; one that fails is announced once and left out from then on.

    Args:
        trackers: by name; started by `start`.
        log: receives a line when one fails.
    """

    def __init__(self, trackers: Mapping[str, Tracker], *, log: Callable[[str], None]) -> None:
        self.trackers = dict(trackers)
        self.log = log

    @classmethod
    def of(cls, names: Iterable[TrackerName], run_folder: Path, *, log: Callable[[str], None]) -> TrackerGroup:
        """The trackers of these names, each with a folder of its own in the run's."""
        return cls({name: tracker(name, run_folder / run_files.TRACKERS / name) for name in names}, log=log)

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        """Start all, before a model is loaded, when a wrong account or address still costs nothing.

        Args:
            settings: nested, as a recipe has them.
            name: of the run.

        Raises:
            ConfigError: one of them cannot start.
        """
        flat_settings = flattened(settings)
        for kind, destination in self.trackers.items():
            error = _error_from(partial(destination.start, flat_settings, name))
            if error is not None:
                raise ConfigError(
                    f"The tracker {kind} does not start",
                    where="train.trackers",
                    found=cause_of(error),
                    expected="an entry for this run",
                    fix=f'set it up, or take "{kind}" out: record.jsonl in the run\'s folder has all figures',
                ) from error

    @contextmanager
    def attach_to(self, watch: RecordListener) -> Iterator[RecordListener]:
        """Yield a listener that passes records on to `watch` and all trackers; an error in the block closes these."""

        def log_record(record: Record) -> None:
            watch(record)
            values = numbers_in(flattened(asdict(record), separator="/"))
            step = int(values.pop("step"))
            self._for_each_tracker(lambda destination: destination.log(step, values))

        try:
            yield log_record
        except BaseException:
            self.finish({})
            raise

    def finish(self, result: Mapping[str, Any]) -> None:
        """Close all of them, with what `result.json` says; empty where the run stopped before its end."""
        scores = numbers_in({key: result.get(key) for key in FINAL_NUMBERS})
        for phase in ("before", "after"):
            scores |= numbers_in(flattened({phase: result.get(phase, {})}, separator="/"))
        self._for_each_tracker(lambda destination: destination.finish(scores))
        self.trackers.clear()

    def _for_each_tracker(self, act: Callable[[Tracker], None]) -> None:
        for kind, destination in list(self.trackers.items()):
            error = _error_from(partial(act, destination))
            if error is not None:
                del self.trackers[kind]
                self.log(f"The tracker {kind} failed and is left out now; record.jsonl goes on: {cause_of(error)}")


def flattened(values: Mapping[str, Any], *, separator: str = ".") -> dict[str, Any]:
    """Values of nested mappings by their path."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {
                f"{key}{separator}{inner}": inner_value
                for inner, inner_value in flattened(value, separator=separator).items()
            }
        else:
            flat[key] = value
    return flat


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are finite numbers."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _error_from(act: Callable[[], None]) -> Exception | None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 packages raise errors of many families here, and a run must outlive each
        return error
    return None
