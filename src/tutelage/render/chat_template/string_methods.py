"""Methods of texts, bytes and numbers that a template may call: how large a result they are about to make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.render.chat_template.limits import ITEM_CHARACTERS, Meter

_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_SPLITTING = frozenset({"split", "rsplit", "splitlines"})
_UNCOUNTED_SPLIT_CHARACTERS = 1_000_000


def allowed_arguments(
    meter: Meter, receiver: Any, name: str, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments to call `receiver.name` with, after its result was found small enough.

    Arguments that fit no such method are left for Python to refuse.
    """
    first = arguments[0] if arguments else None
    if name in _PADDING and isinstance(first, int):
        meter.allow(first)
    elif name == "join" and arguments:
        items = meter.listed(first)
        meter.allow(sum(len(item) + len(receiver) for item in items if isinstance(item, (str, bytes))))
        return (items, *arguments[1:])
    elif (
        name == "replace"
        and len(arguments) > 1
        and all(isinstance(argument, (str, bytes)) for argument in arguments[:2])
    ):
        old, new = arguments[:2]
        if len(new) > len(old) and isinstance(old, str) == isinstance(receiver, str):
            meter.allow(len(receiver) + receiver.count(old) * (len(new) - len(old)))
    elif name == "expandtabs":
        width = named.get("tabsize", 8 if first is None else first)
        tabs = receiver.count("\t" if isinstance(receiver, str) else b"\t")
        meter.allow(len(receiver) + tabs * width)
    elif name == "translate" and isinstance(first, Mapping):
        widest = max((len(replacement) for replacement in first.values() if isinstance(replacement, str)), default=1)
        meter.allow(len(receiver) * widest)
    elif name in _SPLITTING and len(receiver) > _UNCOUNTED_SPLIT_CHARACTERS:
        meter.allow(len(receiver) // 2 * ITEM_CHARACTERS // 10)
    elif name == "to_bytes":
        meter.allow(named.get("length", 1 if first is None else first))
    return arguments
