"""Prepared data by its content: the same rows, read and proven in the same way, are prepared once.

An entry is a folder named by a key: a store with the ledger's entries beside it. It is written aside and renamed, so
that a reader opens a complete entry or none, and two writers of one key do not disturb each other.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any

from tutelage.errors import DataError, SaveError, cause_of
from tutelage.ledger import Ledger
from tutelage.pack.example_store import (
    SUMMARY,
    ExampleStore,
    HashedFile,
    StoreWriter,
    read_sealed,
    require_intact,
    write_sealed,
)
from tutelage.render import Renderer
from tutelage.render.workers import ProvenChunk
from tutelage.system.source_code import source_code_sha256
from tutelage.types import Address, Change, Drop

LEDGER, COUNTS = "ledger.jsonl", "books.json"
MOST_BYTES = 10 << 30
"""What all entries may hold together; the least recently used go first."""
ABANDONED_SECONDS = 24 * 3600.0
"""A folder aside that nobody has finished in this time was left by a process that was ended."""
SCRATCH_PREFIX = ".aside-"
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
"""What a rename onto a folder that holds something may say. Source: rename(2)."""
DECIDING_PACKAGES = (
    "tutelage.formats",
    "tutelage.render",
    "tutelage.render.chat_template",
    "tutelage.pack",
    "tutelage.system",
    "tutelage",
)
DECIDING_LIBRARIES = ("tokenizers", "jinja2", "pyarrow")
"""What a row becomes is decided by this code and these libraries, so their contents and versions are in every key."""


def key_of(facts: Mapping[str, Any]) -> str:
    """The name of what these facts lead to: 32 hexadecimal digits.

    Args:
        facts: everything that decides, as JSON with dates and sets; the code itself is added here.
    """
    deciding = {
        "facts": facts,
        "code": source_code_sha256(DECIDING_PACKAGES),
        "libraries": {name: importlib.metadata.version(name) for name in DECIDING_LIBRARIES},
    }
    text = json.dumps(deciding, sort_keys=True, default=_json_default)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def renderer_facts(renderer: Renderer) -> dict[str, Any]:
    """All of a renderer that decides what a row becomes: template, tokenizer, and every policy it has a field for."""
    template, tokenizer = renderer.template, renderer.tokenizer
    policies = {field.name: getattr(renderer, field.name) for field in fields(renderer) if field.init}
    del policies["template"], policies["tokenizer"]
    return {
        "template": [template.source, template.tools_source],
        "template_arguments": template.arguments,
        "date": template.date,
        "tokenizer": tokenizer.sha256(),
        "named_tokens": tokenizer.named_tokens,
        "stop_ids": tokenizer.stop_ids,
        "vocabulary_size": tokenizer.vocabulary_size,
        "policies": policies,
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """Prepared data: the Examples, and the ledger of the rows they came from; `entries` is the open ledger file."""

    store: ExampleStore
    rows_in: int
    rows_kept: int
    notes: tuple[str, ...]
    entries: IO[str]

    def replay_into(self, ledger: Ledger) -> None:
        """Enter in the ledger what preparing these rows entered, in the same order.

        Raises:
            DataError: in strict mode, at the first dropped row.
        """
        ledger.enter(self.rows_in)
        for note in self.notes:
            ledger.note(note)
        self.entries.seek(0)
        for line in self.entries:
            kind, file, number, unit, reason, detail = json.loads(line)
            ledger.add((Drop if kind == "Drop" else Change)(Address(file, number, unit), reason, detail))
        ledger.keep(self.rows_kept)


class EntryWriter:
    """An entry in the making, in a folder aside.

    Args:
        parent: where that folder is made; None for the system's temporary folder.
        vocabulary_size: see `StoreWriter`.

    Raises:
        SaveError: here and from every method, where the disk refuses.
    """

    def __init__(self, parent: Path | None, *, vocabulary_size: int) -> None:
        self._variable = "TMPDIR" if parent is None else "TUTELAGE_CACHE"
        self._parent = Path(tempfile.gettempdir()) if parent is None else parent
        with self._save_errors():
            self._parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self._parent))
            self.folder.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
            self._store = StoreWriter(self.folder, vocabulary_size=vocabulary_size)
            self._ledger = HashedFile(self.folder / LEDGER)

    @contextmanager
    def _save_errors(self) -> Iterator[None]:
        """What the disk says here concerns prepared data, and no other file of the run."""
        try:
            yield
        except OSError as error:
            raise SaveError(
                "Prepared data cannot be written",
                where=str(self._parent),
                found=cause_of(error),
                fix=f"make room, or name a folder elsewhere: {self._variable}=FOLDER",
            ) from error

    def append(self, chunk: ProvenChunk) -> None:
        """Append the Examples of a chunk of rows."""
        with self._save_errors():
            self._store.append(chunk)

    def record(self, entry: Drop | Change) -> None:
        """Append an entry of the ledger."""
        address = entry.address
        line = [type(entry).__name__, address.file, address.number, address.unit, entry.reason, entry.detail]
        with self._save_errors():
            self._ledger.write(json.dumps(line).encode() + b"\n")

    def finish(self, ledger: Ledger) -> ExampleStore:
        """Complete the folder with the counts and notes of these rows' own ledger; open the store."""
        with self._save_errors():
            self._store.finish()
            written = {LEDGER: self._ledger.finish()}
            counts = {
                "rows_in": ledger.rows_in,
                "rows_kept": ledger.rows_kept,
                "notes": ledger.notes,
                "written": written,
            }
            write_sealed(self.folder / COUNTS, counts)
            return ExampleStore(self.folder)

    def move_to(self, target: Path) -> None:
        """Give the finished folder its name; if another process was first, its folder stands."""
        with self._save_errors():
            while True:
                try:
                    self.folder.rename(target)
                except OSError as error:
                    if target.is_dir():
                        self.abandon()
                    elif error.errno in OCCUPIED:
                        continue  # a third process has deleted that folder meanwhile
                    else:
                        raise
                return

    def abandon(self) -> None:
        """Delete what was written."""
        with suppress(OSError):  # a full disk refuses what was still held; it goes anyway
            self._store.abandon()
        with suppress(OSError):
            self._ledger.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Cache:
    """Entries under one folder, which any number of processes may use at once.

    Args:
        folder: made when the first entry is written.
        most_bytes: see `MOST_BYTES`.
    """

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self._most_bytes = folder, most_bytes

    def find(self, key: str) -> Entry | None:
        """The entry of this key, its bytes checked; None where there is none, and where there was a damaged one."""
        folder = self.folder / key
        try:
            if not folder.is_dir():
                return None
            entry = _open_entry(folder)
        except (DataError, OSError, KeyError, TypeError):  # the last two: sealed, and of another version
            self._remove(folder)
            return None
        with suppress(OSError):  # the last use, for `_prune`; another user's cache may only be read
            os.utime(folder / SUMMARY)
        return entry

    def publish(self, writer: EntryWriter, key: str) -> Path:
        """Give a finished entry its name; if another process was first, its entry stands. Returns its folder.

        Raises:
            SaveError: the disk refuses.
        """
        target = self.folder / key
        writer.move_to(target)
        with suppress(OSError):  # what is not deleted now is looked at again with the next entry
            self._prune(target)
        return target

    def _prune(self, newest: Path) -> None:
        entries = []
        for folder in self.folder.iterdir():
            with suppress(OSError):  # another process may be pruning, too
                if folder.name.startswith(SCRATCH_PREFIX):
                    if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                size_bytes = sum(path.stat().st_size for path in folder.iterdir())
                entries.append((folder == newest, (folder / SUMMARY).stat().st_mtime, size_bytes, folder))
        remaining_bytes = self._most_bytes
        for is_newest, _, size_bytes, folder in sorted(entries, reverse=True):
            remaining_bytes -= size_bytes
            if remaining_bytes < 0 and not is_newest:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Renamed first: no reader must open an entry with half of its files deleted."""
        with suppress(OSError):  # another process was first, or this cache may only be read
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self.folder))
            with suppress(OSError):
                folder.rename(scratch / folder.name)
            shutil.rmtree(scratch, ignore_errors=True)


def _open_entry(folder: Path) -> Entry:
    store = ExampleStore(folder, verify=True)
    counts = read_sealed(folder / COUNTS)
    require_intact(folder / LEDGER, counts["written"][LEDGER], verify=True)
    entries = (folder / LEDGER).open(encoding="utf-8")
    return Entry(store, counts["rows_in"], counts["rows_kept"], tuple(counts["notes"]), entries)


def _json_default(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, date | datetime):
        return f"{type(value).__name__} {value.isoformat()}"
    raise TypeError(f"a {type(value).__name__} has no spelling that a key could be made of")
