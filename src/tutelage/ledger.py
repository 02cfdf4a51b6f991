"""Accounts for every row: in = kept + dropped, each drop and change with its reason, count, addresses and samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import DataError, SaveError, cause_of
from tutelage.types import Change, Drop

SAMPLES_KEPT = 5


@dataclass(slots=True)
class Ledger:
    """The one place that counts rows.

    Doors call `enter` for each row read from a file, `drop` or `keep` exactly once for each row entered, and `change`
    for a row that goes on altered. `check` raises if the books do not balance.

    Args:
        strict: when True the first drop raises DataError instead of being recorded.
        path: a JSONL file that receives every drop and change as it happens; None keeps counts and samples only. Where
            it cannot be written, `drop` and `change` raise SaveError.
        listener: called with every drop and change as it happens.
    """

    strict: bool = False
    path: Path | None = None
    listener: Callable[[Drop | Change], None] | None = None
    rows_in: int = 0
    rows_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    drop_samples: dict[str, list[Drop]] = field(default_factory=dict)
    change_samples: dict[str, list[Change]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something about a whole file or data set, once."""
        if text not in self.notes:
            self.notes.append(text)

    def enter(self, rows: int = 1) -> None:
        """Count rows read from a file."""
        self.rows_in += rows

    def keep(self, rows: int = 1) -> None:
        """Count rows that reached training whole."""
        self.rows_kept += rows

    def drop(self, drop: Drop) -> None:
        """Record a row that goes no further.

        Raises:
            DataError: in strict mode, with the row's address and reason.
            SaveError: the file of entries cannot be written.
        """
        if self.strict:
            raise DataError(
                f"A row was dropped and --strict is on ({drop.reason})",
                where=str(drop.address),
                found=drop.detail,
                expected="a row that can be trained",
                fix="mend or remove the row, or leave out --strict to drop it and go on",
            )
        self.dropped[drop.reason] += 1
        samples = self.drop_samples.setdefault(drop.reason, [])
        if len(samples) < SAMPLES_KEPT:
            samples.append(drop)
        self._publish(drop, {"dropped": drop.reason, "address": str(drop.address), "detail": drop.detail})

    def change(self, change: Change) -> None:
        """Record a row that goes on altered.

        Raises:
            SaveError: the file of entries cannot be written.
        """
        self.changed[change.reason] += 1
        samples = self.change_samples.setdefault(change.reason, [])
        if len(samples) < SAMPLES_KEPT:
            samples.append(change)
        self._publish(change, {"changed": change.reason, "address": str(change.address), "detail": change.detail})

    def add(self, entry: Drop | Change) -> None:
        """Record an entry, whichever it is.

        Raises:
            DataError, SaveError: as `drop` and `change`.
        """
        if isinstance(entry, Drop):
            self.drop(entry)
        else:
            self.change(entry)

    @property
    def rows_dropped(self) -> int:
        """Rows dropped, all reasons together."""
        return self.dropped.total()

    def check(self) -> None:
        """Assert that in = kept + dropped: an imbalance is our bug, never the user's."""
        assert self.rows_in == self.rows_kept + self.rows_dropped, (
            f"ledger does not balance: {self.rows_in} in, {self.rows_kept} kept, {self.rows_dropped} dropped"
        )

    def as_dict(self) -> dict[str, Any]:
        """Counts and samples, ready for JSON."""
        return {
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.rows_dropped,
            "dropped": dict(self.dropped.most_common()),
            "changed": dict(self.changed.most_common()),
            "notes": list(self.notes),
            "samples": {
                reason: [
                    {"address": str(entry.address), "detail": entry.detail}
                    for entry in (*self.drop_samples.get(reason, ()), *self.change_samples.get(reason, ()))
                ]
                for reason in (self.drop_samples | self.change_samples)
            },
        }

    def _publish(self, entry: Drop | Change, record: dict[str, str]) -> None:
        if self.listener is not None:
            self.listener(entry)
        if self.path is not None:
            self._write(self.path, record)

    def _write(self, path: Path, record: dict[str, str]) -> None:
        try:
            # Half a surrogate pair has no UTF-8; written as its escape the line stays JSON of the same text.
            with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise SaveError(
                "The ledger of dropped and changed rows cannot be written",
                where=str(path),
                found=cause_of(error),
                fix="make room there, or choose another place with folder=PATH",
            ) from error
