"""What the file readers hand to the shapes: a row's fields with its address, or a Drop where there is no row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from msgspec import Struct

from tutelage.types import Address, Drop


class RawRow(Struct, gc=False):
    """One row as the file has it: column name -> value, None where a cell is null.

    `filled`: the file cannot tell a null inside a nested column from a key that is not there.
    `text`: the JSON that all of it was decoded from, where it was, and its numbers are finite; of a line its bytes.
    """

    address: Address
    fields: Mapping[str, Any]
    filled: bool = False
    text: str | bytes | None = None


RawRows = Iterator[RawRow | Drop]

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
LONE_SURROGATE: Final = "a \\ud800-\\udfff escape without its other half: not text"


class RowError(Exception):
    """A row that cannot become a Conversation; `read` turns it into a Drop. It never leaves this room."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def may_hold_surrogate(text: str) -> bool:
    """Whether a JSON text escapes half of a surrogate pair, which alone is no text; the other half may follow it."""
    return "\\u" in text and _SURROGATE_ESCAPE.search(text) is not None  # `in` alone is many times faster


def has_surrogate(value: Any) -> bool:
    """Whether any string of a decoded JSON value holds half of a surrogate pair, which no UTF-8 can write."""
    level = [value]
    while level:
        for text in level:
            if type(text) is str and not text.isascii() and bad_bytes(text) is not None:
                return True
        level = [inner for outer in level for inner in _members(outer)]
    return False


def _members(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return chain(value, value.values())
    return value if type(value) is list else ()


def bad_bytes(text: str) -> str | None:
    """The first byte that was not UTF-8 in text decoded with `surrogateescape`, as a sentence; None if all were."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        if not 0 <= byte <= 255:
            return f"half a surrogate pair, \\u{ord(text[error.start]):04x}"
        prefix_text = text[max(0, error.start - 20) : error.start].encode("utf-8", "replace").decode("utf-8")
        return f"byte 0x{byte:02x} after {prefix_text!r} is not UTF-8"
    return None


def json_type(value: Any) -> str:
    """What JSON calls the type of a decoded value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
