"""Rows of a JSON document by the quick decoder: an array of rows, or one object; anything else is for the exact one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_SPACE_AND_START: Final = re.compile(rb"[ \t\n\r]*([\[{]?)")


def opening_of(document: bytes) -> tuple[bytes, int]:
    """The bracket that a document begins with, or nothing, and the line where it stands, from 1."""
    match = _SPACE_AND_START.match(document)
    assert match is not None
    return match[1], document.count(b"\n", 0, match.start(1)) + 1


def items_of(document: bytes) -> Iterator[bytes] | None:
    """The text of each item of an array; None where the document is anything but one array, whole.

    msgspec goes over the items as strictly as it decodes them, but for what is inside strings that are no UTF-8, and
    for numbers too large for a float or for Python. So each item is JSON, or says itself why it is none.
    """
    try:
        items = _ITEMS.decode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (bytes(item) for item in items)


_ITEMS: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(list[msgspec.Raw])
