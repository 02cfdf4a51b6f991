"""What notices any other byte: a JSON object that carries its own hash, as a file or as a line; a file's own hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEAL = "sha256_of_the_above"
OTHER_BYTES = "other bytes than were written"
LINE_NUMBER = "line"
"""Key of a numbered line: from 1, by one from each to the next."""
_LINE = re.compile(rb'(\{.+), "' + SEAL.encode() + rb'": "([0-9a-f]{64})"\}')
_SEALED = re.compile(rb'(\{.+),\n "' + SEAL.encode() + rb'": "([0-9a-f]{64})"\n\}\n', re.DOTALL)


def file_sha256(path: Path, *, suffix: bytes = b"") -> str:
    """SHA-256 of a file's bytes, and of those that follow, as 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(suffix)
    return digest.hexdigest()


def differing_files(folder: Path, hashes: Mapping[str, str | None]) -> dict[str, str]:
    """What is wrong with each file of a folder that has other bytes than it was written with, by its name.

    Args:
        folder: of the files.
        hashes: the SHA-256 of each as it was written, by name; None where there was no such file.
    """
    wrong = {}
    for name, expected in hashes.items():
        try:
            actual = file_sha256(folder / name)
        except FileNotFoundError:
            actual = None
        except OSError as error:
            wrong[name] = error.strerror or str(error)
            continue
        if actual != expected:
            wrong[name] = "no such file" if actual is None else OTHER_BYTES
    return wrong


def sealed(content: Mapping[str, Any]) -> str:
    """`content`, which is not empty, as JSON whose last entry, `SEAL`, is the SHA-256 of all bytes before it."""
    assert content, "there is something to seal"
    assert SEAL not in content, "it is sealed once"
    body = json.dumps(content, ensure_ascii=False, indent=1).removesuffix("\n}")
    return f'{body},\n "{SEAL}": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def unsealed(data: bytes) -> dict[str, Any]:
    """What was sealed, without its hash.

    Raises:
        ValueError: these are not the bytes that were written.
    """
    return _without_seal(_SEALED.fullmatch(data), closing=b"\n}")


def sealed_line(content: Mapping[str, Any]) -> str:
    """The same on one line, without its end."""
    assert content, "there is something to seal"
    assert SEAL not in content, "it is sealed once"
    body = json.dumps(content, ensure_ascii=False).removesuffix("}")
    return f'{body}, "{SEAL}": "{hashlib.sha256(body.encode()).hexdigest()}"}}'


class LineNumbers:
    """Follows the numbers of sealed lines, so that one that was taken out, moved or doubled is noticed."""

    def __init__(self) -> None:
        self._missing = 0

    def pop_number(self, content: dict[str, Any], position: int) -> str | None:
        """Take the number out of the line that is at `position`, counted from 1, and say what is wrong with it.

        A line without a number, as an earlier version wrote it, is as it should be.
        """
        number = content.pop(LINE_NUMBER, None)
        if not isinstance(number, int):
            return None
        missing, self._missing = number - position - self._missing, number - position
        if missing > 0:
            return f"{missing} line{'' if missing == 1 else 's'} before it {'is' if missing == 1 else 'are'} gone"
        return "it is not in its place" if missing else None


@dataclass(frozen=True, slots=True)
class NumberedLine:
    """A line of a file of sealed lines.

    Attributes:
        number: its place in the file, from 1.
        content: what was sealed, without its number; None where it is damaged.
        damage: what is wrong with it, where it cannot be read.
        misplaced: what is wrong with its place.
        is_ended: whether a line feed follows; the last line may be one that is still being written.
    """

    number: int
    content: Any
    damage: str | None
    misplaced: str | None
    is_ended: bool


def numbered_lines(data: bytes, *, decode: Callable[[bytes], Any] | None = None) -> Iterator[NumberedLine]:
    """The lines of a file of sealed lines, in their order, whatever is wrong with them.

    Args:
        data: of the file.
        decode: reads a line, and raises ValueError where it is damaged; `unsealed_line` unless given.
    """
    numbers = LineNumbers()
    *ended, unended_line = data.split(b"\n")
    for number, line in enumerate([*ended, unended_line] if unended_line else ended, start=1):
        is_ended = number <= len(ended)
        try:
            content = (decode or unsealed_line)(line)
        except ValueError as error:
            yield NumberedLine(number, None, str(error), None, is_ended)
            continue
        misplaced = numbers.pop_number(content, number) if isinstance(content, dict) else None
        yield NumberedLine(number, content, None, misplaced, is_ended)


def unsealed_line(line: bytes) -> dict[str, Any]:
    """What `sealed_line` sealed, without its hash.

    Raises:
        ValueError: these are not the bytes that were written.
    """
    return _without_seal(_LINE.fullmatch(line), closing=b"}")


def _without_seal(parts: re.Match[bytes] | None, *, closing: bytes) -> dict[str, Any]:
    if parts is None or hashlib.sha256(parts[1]).hexdigest() != parts[2].decode():
        raise ValueError(OTHER_BYTES)
    content: dict[str, Any] = json.loads(parts[1] + closing)
    return content
