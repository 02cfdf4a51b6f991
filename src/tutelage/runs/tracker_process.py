"""A run's figures on their way to trackers: what they are told, and that none of them can end a run."""

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

Watch = Callable[[Record], None]
FINAL = ("steps", "epochs", "best_step", "tokens_per_second", "trained_tokens", "total_tokens", "peak_bytes")
"""Figures of `result.json` that are told in the end, beside the measures before and after."""


class TrackerProcess:
    """Tells trackers what happens; one that fails on the way is announced once and left out from there on.

    Args:
        trackers: by name; started by `start`.
        log: told when one fails.
    """

    def __init__(self, trackers: Mapping[str, Tracker], *, log: Callable[[str], None]) -> None:
        self.trackers = dict(trackers)
        self.log = log

    @classmethod
    def of(cls, names: Iterable[TrackerName], run_folder: Path, *, log: Callable[[str], None]) -> TrackerProcess:
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
        flat = flattened(settings)
        for kind, one in self.trackers.items():
            error = _error_of(partial(one.start, flat, name))
            if error is not None:
                raise ConfigError(
                    f"The tracker {kind} does not start",
                    where="train.trackers",
                    found=cause_of(error),
                    expected="an entry for this run",
                    fix=f'set it up, or take "{kind}" out: record.jsonl in the run\'s folder has all figures',
                ) from error

    @contextmanager
    def beside(self, watch: Watch) -> Iterator[Watch]:
        """Yield a watcher that tells `watch` and all trackers; an error inside the block closes these."""

        def told(record: Record) -> None:
            watch(record)
            values = numbers_in(asdict(record))
            step = int(values.pop("step"))
            self._tell(lambda one: one.log(step, values))

        try:
            yield told
        except BaseException:
            self.finish({})
            raise

    def finish(self, result: Mapping[str, Any]) -> None:
        """Close all of them, with what `result.json` says; empty where the run stopped before its end."""
        scores = numbers_in({key: result.get(key) for key in FINAL})
        for when in ("before", "after"):
            scores |= numbers_in(flattened({when: result.get(when, {})}, between="/"))
        self._tell(lambda one: one.finish(scores))
        self.trackers.clear()

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for kind, one in list(self.trackers.items()):
            error = _error_of(partial(tell, one))
            if error is not None:
                del self.trackers[kind]
                self.log(f"The tracker {kind} failed and is left out now; record.jsonl goes on: {cause_of(error)}")


def flattened(values: Mapping[str, Any], *, between: str = ".") -> dict[str, Any]:
    """Values of nested mappings by their path."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{between}{inner}": one for inner, one in flattened(value, between=between).items()}
        else:
            found[key] = value
    return found


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are finite numbers."""
    return {
        key: float(one)
        for key, one in values.items()
        if isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one)
    }


def _error_of(act: Callable[[], None]) -> Exception | None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 packages raise errors of many families here, and a run must outlive each
        return error
    return None
