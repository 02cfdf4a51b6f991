"""Replies kept in a file as they end, a line each, so that an evaluation that was killed asks no prompt twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import cause_of
from tutelage.generate.requests import EndedBy, EndedReply
from tutelage.system.seals import numbered_lines, sealed_line
from tutelage.types import TokenIds


class ReplyLog:
    """The replies of one model, looked up by what was asked of it.

    Each process appends to a file of its own, and all begin with what the main one reads in the files of all. A line
    carries its own hash: half a line, as a killed process leaves at the end, and any other that is damaged, counts as
    not written. A file that cannot be written is said once; replies are then not kept.

    Args:
        path: the main process's file; those of others have their rank in the name. None: nothing is kept.
        asked: all that decides a reply beside its prompt: weights, precision, longest reply.
        process_group: processes that share the prompts; all must open it.
        log: told where replies are there already, and where none can be kept.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        asked: Mapping[str, Any],
        process_group: ProcessGroup = SINGLE,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._asked = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        self._log, self._descriptor = log, None
        self.known: dict[str, EndedReply] = {}
        if path is None:
            return
        # By the main process alone: another may be writing its file already when a slower one comes to read.
        self.known = process_group.gather(_read(path) if process_group.is_main else {})[0]
        self._path = path if process_group.is_main else _of_rank(path, str(process_group.rank))
        try:
            _drop_half_line(self._path)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            self._say_not_kept(error)

    def key(self, prompt: TokenIds, *, again: bool = False) -> str:
        """By which the reply to a prompt is kept; `again` is that of the same prompt asked once more."""
        digest = self._asked.copy()
        digest.update(b"again" if again else b"")
        digest.update(prompt.astype("<i4").tobytes())
        return digest.hexdigest()

    def add(self, key: str, reply: EndedReply) -> None:
        """Keep a reply; it is in the file when this returns, whatever becomes of the process."""
        if self._descriptor is None:
            return
        line = {"key": key, "text": reply.text, "tokens": reply.tokens, "ended_by": reply.ended_by}
        try:
            _write_all(self._descriptor, (sealed_line(line) + "\n").encode())
        except OSError as error:
            self.close()
            self._say_not_kept(error)

    def close(self) -> None:
        """Close the file; it stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _say_not_kept(self, error: OSError) -> None:
        self._log(f"  note: {self._path.name} cannot be written ({cause_of(error)}): a killed evaluation begins again")


NOT_KEPT = ReplyLog(None, asked={})
"""Keeps nothing."""


def delete_replies(path: Path) -> None:
    """Delete the files of all processes, as far as that is allowed: all they hold is elsewhere by now."""
    for file in _files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError:
            continue


def _files(path: Path) -> list[Path]:
    return [*sorted(path.parent.glob(_of_rank(path, "*").name)), path]


def _of_rank(path: Path, rank: str) -> Path:
    return path.with_name(f"{path.stem}-of-{rank}{path.suffix}")


def _read(path: Path) -> dict[str, EndedReply]:
    replies: dict[str, EndedReply] = {}
    for file in _files(path):
        try:
            data = file.read_bytes()
        except OSError:  # none yet; or one that cannot be read, whose prompts are asked again
            continue
        for line in numbered_lines(data):
            if line.is_ended and line.content is not None and line.content.get("ended_by") in get_args(EndedBy):
                replies[line.content["key"]] = EndedReply(
                    line.content["text"], line.content["tokens"], line.content["ended_by"]
                )
    return replies


def _drop_half_line(path: Path) -> None:
    """Cut a file behind its last whole line, so that the next one begins a line of its own."""
    try:
        with path.open("r+b") as stream:
            data = stream.read()
            if data and not data.endswith(b"\n"):
                stream.truncate(data.rfind(b"\n") + 1)
    except FileNotFoundError:
        return


def _write_all(descriptor: int, data: bytes) -> None:
    """In one call, as far as the system takes it."""
    while data:
        data = data[os.write(descriptor, data) :]
