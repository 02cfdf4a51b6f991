"""Tool calls, in the several ways they are written down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tutelage.formats.names import CALL_KEYS
from tutelage.formats.nested import document, holds_null, json_of_python
from tutelage.formats.nulls import without_filled_nulls
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.types import ToolCall

_CALL_KEYS: Final = frozenset(name for names in CALL_KEYS.values() for name in names)
_PLAIN_VALUES: Final = frozenset({str, int, bool})
"""Types of values that hold nothing else, are no null, and can always be written as JSON."""

_CALL_START: Final = "<tool_call>"
_CALL_END: Final = "</tool_call>"
_TAGGED_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def calls_from(value: Any, where: str, context: RowContext) -> tuple[ToolCall, ...]:
    """The calls in `value`: one call or a list of calls, as objects or as a JSON string of them.

    Raises:
        RowError: `bad_tool_arguments`, `wrong_type`, or a reason of `nested.document`.
    """
    decoded = document(value, "bad_tool_arguments", where) if isinstance(value, str) else value
    items = decoded if isinstance(decoded, list) else [decoded]
    if not items:
        raise RowError("bad_tool_arguments", f"{where}: an empty list of calls")
    return tuple(_call(item, where, context) for item in items)


def _call(item: Any, where: str, context: RowContext) -> ToolCall:
    if isinstance(item, str):
        item = document(item, "bad_tool_arguments", where)
    if not isinstance(item, dict):
        raise RowError("bad_tool_arguments", f"{where}: a call must be an object, found {json_type(item)}")
    function = item.get("function")
    body = function if isinstance(function, dict) else item
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise RowError("bad_tool_arguments", f"{where}: the call names no function; its keys are {_keys(body)}")
    if not item.keys() <= _CALL_KEYS or not body.keys() <= _CALL_KEYS:
        filled_keys = [key for container in (item, body) for key, value in container.items() if value is not None]
        context.remarks.unread("call", set(filled_keys) - _CALL_KEYS)
    identifier = next((item[key] for key in CALL_KEYS["id"] if item.get(key) is not None), None)
    return ToolCall(name, _arguments(body, name, where, context), call_id(identifier, "the id of a call", where))


def _arguments(body: Mapping[str, Any], name: str, where: str, context: RowContext) -> Mapping[str, Any]:
    arguments: Any = next((body[key] for key in CALL_KEYS["arguments"] if body.get(key) is not None), {})
    as_written, has_null = isinstance(arguments, str), False
    if isinstance(arguments, str):
        text = arguments
        arguments = (
            document(text, "bad_tool_arguments", f"{where}, arguments of {name}", not_json="bad_tool_arguments")
            if text.strip()
            else {}
        )
        has_null = "null" in text
    if not isinstance(arguments, dict):
        found_type = json_type(arguments)
        raise RowError("bad_tool_arguments", f"{where}: the arguments of {name} must be an object, found {found_type}")
    if not arguments:
        return {}
    if not as_written and not _PLAIN_VALUES.issuperset(map(type, arguments.values())):
        has_null = holds_null(arguments, f"{where}, arguments of {name}", not_json="bad_tool_arguments")
    if not has_null:
        return arguments
    without_filled = without_filled_nulls(arguments, context.schemas.get(name), as_written=as_written)
    if without_filled != arguments:
        context.remarks.nulls("the arguments of calls")
    return without_filled


def call_id(value: Any, name: str, where: str) -> str | None:
    """The id of a call or of the call that a result answers; a whole number becomes its digits.

    Raises:
        RowError: `wrong_type`.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RowError("wrong_type", f"{where}: {name} must be a string, found {json_type(value)}")
    return str(value)


def parse_tagged_calls(text: str, where: str, context: RowContext) -> tuple[str, tuple[ToolCall, ...]]:
    """The words of a reply and the calls it spells between `<tool_call>` and `</tool_call>`.

    Each call may be JSON or Python's notation of it.

    Raises:
        RowError: `bad_tool_arguments`; `calls_in_text` where words follow a call, as a template writes calls last, or
            where a call is not closed.
    """
    matches = []
    # Counted first: an opening without an end would be followed to the end of the text, each of them again.
    if text.count(_CALL_START) == text.count(_CALL_END):
        matches = list(_TAGGED_CALL.finditer(text))
    if not matches:
        raise RowError("calls_in_text", f"{where}: not each `<tool_call>` has its `</tool_call>`")
    prefix_text, suffix_text = text[: matches[0].start()].rstrip(), _TAGGED_CALL.sub("", text[matches[0].end() :])
    if suffix_text.strip():
        raise RowError("calls_in_text", f"{where}: words stand behind a `<tool_call>`: {suffix_text.strip()[:40]!r}")
    calls = [_parse_call(match[1].strip(), where, context) for match in matches]
    return prefix_text, tuple(calls)


def _parse_call(text: str, where: str, context: RowContext) -> ToolCall:
    try:
        return calls_from(text, where, context)[0]
    except RowError as error:
        translated = json_of_python(text)
        if translated is None or translated == text:
            raise error
    return calls_from(translated, where, context)[0]


def is_call_list(value: Any) -> bool:
    """Whether a decoded value is a list of objects that hold a function's name, its arguments and nothing else."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and set(item) == {"name", "arguments"} for item in value)
    )


def _keys(item: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(sorted(map(str, item))[:8]) or "none"
