"""The folder of a synthesis: rows as they are made, what was dropped and why, every reply, and the report.

All but the replies is made again from them when the command is given again, line by line: lines that are there already
stay as they are, so a synthesis that goes on never has fewer rows in its folder than before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, SaveError, cause_of, remedy
from tutelage.ledger import Ledger
from tutelage.system.files import write_bytes
from tutelage.types import Drop

ROWS, DROPPED, REPLIES, REPORT, ASKED = "rows.jsonl", "dropped.jsonl", "replies.jsonl", "report.json", "asked.json"
PAGE = "report.html"


class GrowingFile:
    """Lines that are written again from the first one: those that the file has already are left, others follow."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0
        self._stream = path.open("r+b" if path.exists() else "w+b")
        self._there = self._stream.read()

    def write(self, content: Mapping[str, Any]) -> None:
        """Add a line of JSON."""
        line = (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        end = self._place + len(line)
        if self._there[self._place : end] != line:
            if self._there:  # half a line of a killed process, or what another version of this program wrote
                self._stream.seek(self._place)
                self._stream.truncate()
                self._there = b""
            self._stream.write(line)
        self._place = end

    def flush(self) -> None:
        """Hand all lines to the system."""
        self._stream.flush()

    def close(self) -> None:
        """Cut off what was there behind the last line, and see all onto the disk."""
        if len(self._there) > self._place:
            self._stream.seek(self._place)
            self._stream.truncate()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


@dataclass(slots=True)
class Output:
    """Where a synthesis writes.

    Args:
        folder: made if it is not there.
        asked: all that decides what is made, but how many rows.

    Raises:
        ConfigError: the folder holds something else, or a synthesis that asked for something else.
        SaveError: the disk refuses.
    """

    folder: Path
    asked: Mapping[str, Any]
    ledger: Ledger = field(init=False)
    rows: int = 0
    _rows: GrowingFile = field(init=False)
    _dropped: GrowingFile = field(init=False)

    def __post_init__(self) -> None:
        self._require_own_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / ASKED, (json.dumps(self.asked, indent=1, ensure_ascii=False) + "\n").encode())
            self._rows, self._dropped = GrowingFile(self.folder / ROWS), GrowingFile(self.folder / DROPPED)
        except OSError as error:
            raise self._save_error(error) from error
        self.ledger = Ledger(listener=self._write_drop)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Write a row; it enters the ledger as one that was kept.

        Raises:
            SaveError: the disk refuses.
        """
        try:
            self._rows.write(row)
        except OSError as error:
            raise self._save_error(error) from error
        self.ledger.enter()
        self.ledger.keep()
        self.rows += 1

    def flush(self) -> None:
        """Hand all that was written to the system.

        Raises:
            SaveError: the disk refuses.
        """
        try:
            self._rows.flush()
            self._dropped.flush()
        except OSError as error:
            raise self._save_error(error) from error

    def finish(self, report: Mapping[str, Any], page: str | None = None) -> None:
        """Close the files and write the report, and its page where there is one.

        Raises:
            SaveError: the disk refuses.
        """
        self.ledger.check()
        try:
            self._rows.close()
            self._dropped.close()
            write_bytes(self.folder / REPORT, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
            if page is not None:
                write_bytes(self.folder / PAGE, page.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise self._save_error(error) from error

    def _write_drop(self, entry: object) -> None:
        assert isinstance(entry, Drop), "nothing is changed here"
        self._dropped.write({"dropped": entry.reason, "address": str(entry.address), "detail": entry.detail})

    def _require_own_folder(self) -> None:
        path = self.folder / ASKED
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise ConfigError(
                    "The output folder is something else", where=str(self.folder), found="files, or a file",
                    expected="a new or empty folder, or one of the same command", fix="choose another with -o",
                ) from None  # fmt: skip
            return
        except (OSError, ValueError) as error:
            raise ConfigError("What was asked before cannot be read", where=str(path), found=cause_of(error)) from error
        differing = [name for name in {**self.asked, **before} if before.get(name) != self.asked.get(name)]
        if differing:
            name = differing[0]
            raise ConfigError(
                "The folder holds a synthesis that asked for something else", where=str(path),
                found=f"{name} was {before.get(name)}, and is {self.asked.get(name)}",
                fix="choose another folder with -o, or ask for the same",
            )  # fmt: skip

    def _save_error(self, error: OSError) -> SaveError:
        return SaveError(
            "The output cannot be written", where=str(self.folder), found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        )  # fmt: skip
