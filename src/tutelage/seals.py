"""A JSON object that carries its own hash: any other byte of it is noticed. As a file, or as a line of one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SEAL = "sha256_of_the_above"
LINE_NUMBER = "line"
"""Key of a numbered line: from 1, by one from each to the next."""
_LINE = re.compile(rb'(\{.+), "' + SEAL.encode() + rb'": "([0-9a-f]{64})"\}')
_SEALED = re.compile(rb'(\{.+),\n "' + SEAL.encode() + rb'": "([0-9a-f]{64})"\n\}\n', re.DOTALL)


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

    def taken_from(self, content: dict[str, Any], place: int) -> str | None:
        """Take the number out of the line that is at `place`, counted from 1, and say what is wrong with it.

        A line without a number, as an earlier version wrote it, is as it should be.
        """
        found = content.pop(LINE_NUMBER, None)
        if not isinstance(found, int):
            return None
        missing, self._missing = found - place - self._missing, found - place
        if missing > 0:
            return f"{missing} line{'' if missing == 1 else 's'} before it {'is' if missing == 1 else 'are'} gone"
        return "it is not in its place" if missing else None


def unsealed_line(line: bytes) -> dict[str, Any]:
    """What `sealed_line` sealed, without its hash.

    Raises:
        ValueError: these are not the bytes that were written.
    """
    return _without_seal(_LINE.fullmatch(line), closing=b"}")


def _without_seal(parts: re.Match[bytes] | None, *, closing: bytes) -> dict[str, Any]:
    if parts is None or hashlib.sha256(parts[1]).hexdigest() != parts[2].decode():
        raise ValueError("other bytes than were written")
    content: dict[str, Any] = json.loads(parts[1] + closing)
    return content
