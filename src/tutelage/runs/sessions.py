"""`starts.json`: the stretches in which a run was worked on, from its start or a resume on, and how long each took.

A process that is killed cannot write its end. What it took until its last step is read from the record, whose seconds
go on from where a file said they stood (`recorded_seconds`); what it did after that step is not known, and not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.errors import CheckpointError, SaveError, cause_of
from tutelage.runs.folder import STARTS, read_json, write_json
from tutelage.runs.metrics_log import read_record, record_path


@dataclass(frozen=True, slots=True)
class Start:
    """When a session began: as ISO 8601 has it, and by `time.perf_counter`."""

    written: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = field(default_factory=time.perf_counter)


class Session:
    """The stretch that is under way, after those of the same run that lie before it.

    Args:
        path: of the file; None writes nothing, as in processes beside the main one.
        earlier: entries of the sessions before.
        start: of this one.
    """

    def __init__(self, path: Path | None, earlier: list[dict[str, Any]], start: Start) -> None:
        self._path, self._earlier, self._start = path, earlier, start

    def mark(self, recorded_seconds: float) -> None:
        """Write how long it has taken by now.

        Args:
            recorded_seconds: where the record's `elapsed_seconds` stand; they go on from there.

        Raises:
            SaveError: the disk is full or refuses.
        """
        if self._path is not None:
            seconds = time.perf_counter() - self._start.seconds
            entry = {"started": self._start.written, "seconds": seconds, "recorded_seconds": recorded_seconds}
            write_json(self._path, {"starts": [*self._earlier, entry]})

    def figures(self) -> dict[str, Any]:
        """For `result.json`: the first start of the run, seconds of all sessions by now, how often it was resumed."""
        seconds = time.perf_counter() - self._start.seconds + sum(entry["seconds"] for entry in self._earlier)
        started = self._earlier[0]["started"] if self._earlier else None
        return {"started": started or self._start.written, "elapsed_seconds": seconds, "resumed": len(self._earlier)}


@contextmanager
def open_session(
    folder: Path, start: Start, *, resume: bool, writes: bool, log: Callable[[str], None]
) -> Iterator[Session]:
    """The session that begins now; its end is written when the block is left, however it is.

    Args:
        folder: of the run, locked.
        start: of the session.
        resume: there are earlier ones.
        writes: this is the process that writes the run's files.
        log: receives a line where what was written of earlier ones is damaged.

    Raises:
        CheckpointError: the record cannot be read.
        SaveError: the disk is full or refuses.
    """
    if not writes:
        yield Session(None, [], start)
        return
    session = Session(folder / STARTS, _earlier(folder, log) if resume else [], start)
    session.mark(_recorded_seconds(folder))
    try:
        yield session
    finally:
        with suppress(
            SaveError, CheckpointError
        ):  # what ended the block is what there is to say, and a resume can do without
            session.mark(_recorded_seconds(folder))


def _earlier(folder: Path, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """The sessions before, the last of which may have been killed; by the record alone where no file says."""
    recorded = _recorded_seconds(folder)
    try:
        sessions: list[dict[str, Any]] = read_json(folder / STARTS)["starts"]
    except FileNotFoundError:  # an earlier version began this run
        sessions = [{"started": None, "seconds": 0.0, "recorded_seconds": 0.0}]
    except (OSError, ValueError) as error:
        log(f"  note: {STARTS} is damaged ({cause_of(error)}); the time of earlier parts is what the record has")
        sessions = [{"started": None, "seconds": 0.0, "recorded_seconds": 0.0}]
    last = sessions[-1]
    took = last["seconds"] + max(0.0, recorded - last["recorded_seconds"])
    return [*sessions[:-1], last | {"seconds": took, "recorded_seconds": recorded}]


def _recorded_seconds(folder: Path) -> float:
    lines, _ = read_record(record_path(folder))
    return max((float(line["elapsed_seconds"]) for line in lines), default=0.0)
