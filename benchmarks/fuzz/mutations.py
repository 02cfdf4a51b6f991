"""Small damages: to bytes, and to the values of JSON and TOML documents."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

DEEP = 700
ODD_BYTES = (b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"}{", b"\n\n", b"\\ud800")
ODD_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 10**400,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: "",
    lambda: "\ud800",
    lambda: "\x00\x1b[31m",
    lambda: "<|im_end|>",
    lambda: "{{ x }}",
    lambda: '[{"role": "user", "content": "\\ud800"}]',
    lambda: "x" * 20_000,
    list,
    dict,
    lambda: [[]],
    lambda: {"": ""},
    lambda: ["a", 1, None],
    lambda: nested(DEEP),
)


def nested(depth: int) -> Any:
    """A list in a list, `depth` deep."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a document, the document itself left out."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [below for key, inner in pairs for below in ((*path, key), *places(inner, (*path, key)))]


def damaged_value(document: Any, draw: random.Random) -> Any:
    """A copy of a document in which one value is another, is gone, stands twice, or has another name."""
    found = places(document)
    if not found:
        return draw.choice(ODD_VALUES)()
    changed = copy.deepcopy(document)
    *above, last = draw.choice(found)
    holder = changed
    for key in above:
        holder = holder[key]
    act = draw.randrange(5)
    if act == 0:
        del holder[last]
    elif act == 1 and isinstance(holder, dict):
        holder[draw.choice(["role", "content", "weight", "tools", "x", "", "label", str(last) + "s"])] = holder.pop(
            last
        )
    elif act == 2 and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
    else:
        holder[last] = draw.choice(ODD_VALUES)()
    return changed


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to four damages: a bit, a byte, a cut, a piece twice, gone, or full of zeros."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not data:
            break
        place, length = draw.randrange(len(data)), draw.choice((1, 2, 8, 64, 512))
        act = draw.randrange(7)
        if act == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif act == 1:
            data[place] = draw.choice(b'\x00\n\r"\\{}[],:\xff\xef\x1b')
        elif act == 2:
            del data[place:]
        elif act == 3:
            del data[place : place + length]
        elif act == 4:
            data[place:place] = data[place : place + length]
        elif act == 5:
            data[place : place + length] = bytes(min(length, len(data) - place))
        else:
            data[place:place] = draw.choice(
                (b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"}{", b"\n\n", b"\\ud800")
            )
    return bytes(data)
