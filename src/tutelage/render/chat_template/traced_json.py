"""JSON and Python's notation of values that know where their characters come from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.render.chat_template.tracing import JSON, PYTHON, TracedText, expanded, in_notation, joined

_QUOTED = {True: json.JSONEncoder().encode, False: json.JSONEncoder(ensure_ascii=False).encode}
"""By `ensure_ascii`, a text as JSON; json.dumps makes an encoder for each text where it is not ASCII alone."""
_SPECIAL = re.compile(r'[\x00-\x1f\\"]')
_MAYBE_ESCAPED = re.compile(r"""[\\'"]|[^\x20-\x7e]""")
_SPECIAL_OR_NOT_ASCII = re.compile(r'[\x00-\x1f\\"]|[^\x20-\x7f]|\x7f')


def traced_json(
    value: Any,
    text: str,
    *,
    ensure_ascii: bool,
    indent: int | str | None,
    separators: tuple[str, str] | None,
    sort_keys: bool,
) -> str:
    """`text`, which is `json.dumps` of `value` with these options, with the origin of each character.

    Each character of an escape has the origin of the character it stands for; brackets, quotes, keys and numbers are
    the template's own.
    """
    item, key = separators or (", " if indent is None else ",", ": ")
    margin = " " * indent if isinstance(indent, int) else indent
    pieces = list(_Writer(ensure_ascii, margin, item, key, sort_keys).value(value, 0))
    written = joined("", pieces)
    if written != text:
        return text
    return in_notation(written, JSON) if isinstance(value, (dict, list, tuple)) and value else written


def traced_repr(value: Any, text: str) -> str:
    """`text`, which is `str` of a list, tuple or dict, with the origin of each character, as in `traced_json`.

    Python and JSON write a list of numbers alike; only where they differ is it Python's notation.
    """
    written = joined("", list(_python(value)))
    if written != text:
        return text
    return in_notation(written, PYTHON if _is_python(value, text) else JSON) if value else written


def _is_python(value: Any, text: str) -> bool:
    try:
        return json.dumps(value, ensure_ascii=False) != text
    except (TypeError, ValueError):  # JSON has no word for it
        return True


def _python(value: Any) -> Iterator[str]:
    if isinstance(value, TracedText):
        quote = '"' if "'" in value and '"' not in value else "'"
        yield quote
        yield expanded(value, _MAYBE_ESCAPED, lambda fragment: _inside_quotes(fragment, quote))
        yield quote
    elif isinstance(value, dict):
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            yield ", " if index else ""
            yield from _python(key)
            yield ": "
            yield from _python(item)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "[" if isinstance(value, list) else "("
        for index, item in enumerate(value):
            yield ", " if index else ""
            yield from _python(item)
        yield "]" if isinstance(value, list) else ",)" if len(value) == 1 else ")"
    else:
        yield repr(value)


def _inside_quotes(fragment: str, quote: str) -> str:
    """What Python writes for a part of a text between these quotes."""
    # With both kinds of quotes in it, repr takes ' and escapes it; the added ones fix what it takes.
    return repr(fragment + "'\"")[1:-4] if quote == "'" else repr(fragment + "'")[1:-2]


@dataclass(frozen=True, slots=True)
class _Writer:
    ensure_ascii: bool
    margin: str | None
    item_separator: str
    key_separator: str
    sort_keys: bool

    def value(self, value: Any, depth: int) -> Iterator[str]:
        if isinstance(value, str):
            yield from self._string(value)
        elif isinstance(value, dict) and value:
            yield from self._object(value, depth)
        elif isinstance(value, (list, tuple)) and value:
            yield "["
            for index, item in enumerate(value):
                yield self._item_prefix(index, depth + 1)
                yield from self.value(item, depth + 1)
            yield self._line(depth) + "]"
        else:
            yield json.dumps(value)

    def _object(self, value: dict[Any, Any], depth: int) -> Iterator[str]:
        yield "{"
        for index, (key, item) in enumerate(sorted(value.items()) if self.sort_keys else value.items()):
            yield self._item_prefix(index, depth + 1)
            yield from self._string(key if isinstance(key, str) else json.dumps(key))
            yield self.key_separator
            yield from self.value(item, depth + 1)
        yield self._line(depth) + "}"

    def _item_prefix(self, index: int, depth: int) -> str:
        return (self.item_separator if index else "") + self._line(depth)

    def _line(self, depth: int) -> str:
        return "" if self.margin is None else "\n" + self.margin * depth

    def _string(self, text: str) -> Iterator[str]:
        if not isinstance(text, TracedText):
            yield _QUOTED[self.ensure_ascii](text)
            return
        yield '"'
        pattern = _SPECIAL_OR_NOT_ASCII if self.ensure_ascii else _SPECIAL
        yield expanded(text, pattern, lambda fragment: _QUOTED[self.ensure_ascii](fragment)[1:-1])
        yield '"'
