"""What two readers make of the same rows: same turns and same trained replies, another reading, or nothing."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.types import Conversation

OPTIONS = ["--from", "auto", "--format", "messages", "--preference", "chosen", "--train-turns", "data"]
OPTIONS += ["--reasoning", "reasoning_content", "--tool-arguments", "object"]
_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Turn:
    """What counts of a turn: white space, empty texts and ids do not."""

    role: str
    text: str
    reasoning: str
    calls: tuple[str, ...]
    trained: bool


Rows = tuple[tuple[Turn, ...], ...]


def ours(path: Path) -> tuple[Rows, str]:
    """Our reading, and why there is none."""
    ledger = Ledger()
    try:
        rows = tuple(_ours(row) for row in read([str(path)], ledger=ledger))
    except DataError as error:
        return (), f"refused: {error}".splitlines()[0]
    return rows, ", ".join(f"{count} {reason}" for reason, count in ledger.dropped.items())


def _ours(row: Conversation) -> tuple[Turn, ...]:
    return tuple(
        _turn(
            message.role,
            message.content,
            message.reasoning,
            tuple(_call(call.name, dict(call.arguments)) for call in message.tool_calls),
            trained=message.role in {"assistant", "text"} and message.weight != 0,
        )
        for message in row.messages
    )


def _turn(role: str, text: str | None, reasoning: str | None, calls: tuple[str, ...], *, trained: bool) -> Turn:
    """A turn whose reasoning stands apart, wherever the reader left it."""
    if role == "assistant" and text and (match := _THINK.match(text)) is not None:
        text, reasoning = match[2], match[1]
    return Turn(role, _plain(text), _plain(reasoning), calls, trained)


def theirs(path: Path, command: str) -> tuple[Rows, str]:
    """The reading of the other program, and what it says where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        done = subprocess.run(
            [command, "convert", "-i", str(path), "-o", str(out), *OPTIONS], capture_output=True, text=True, check=False
        )
        lines = out.read_text(encoding="utf-8").split("\n") if out.is_file() else []
    said = (done.stdout + done.stderr).strip().splitlines()
    return tuple(tuple(_theirs(json.loads(line))) for line in lines if line), said[-1] if said else ""


def _theirs(row: dict[str, Any]) -> Iterator[Turn]:
    for turn in row["messages"]:
        calls = [call.get("function", call) for call in turn.get("tool_calls") or []]
        content = turn.get("content")
        text = content if isinstance(content, str) or content is None else json.dumps(content)
        yield _turn(
            turn["role"],
            text,
            turn.get("reasoning_content"),
            tuple(_call(call.get("name"), call.get("arguments")) for call in calls),
            trained=turn["role"] == "assistant" and turn.get("train") is not False,
        )


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _call(name: Any, arguments: Any) -> str:
    return json.dumps([name, arguments], sort_keys=True, ensure_ascii=False)


def verdict(expected: Rows, reading: Rows) -> str:
    """`same`, `fewer` (each row is among ours, some are missing), `nothing`, or `other` for any other reading."""
    if reading == expected:
        return "same"
    if not reading:
        return "nothing"
    is_part = len(reading) < len(expected) and all(row in expected for row in reading)
    return "fewer" if is_part else "other"
