"""Tool calls and tool descriptions, in the several ways they are written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tutelage.formats.rawrow import RowError, json_type
from tutelage.types import ToolCall


def calls_from(value: Any, where: str) -> tuple[ToolCall, ...]:
    """The calls in `value`: one call or a list of calls, as objects or as a JSON string of them.

    Raises:
        RowError: `bad_tool_arguments`.
    """
    decoded = _decoded(value, where) if isinstance(value, str) else value
    items = decoded if isinstance(decoded, list) else [decoded]
    if not items:
        raise RowError("bad_tool_arguments", f"{where}: an empty list of calls")
    return tuple(_call(item, where) for item in items)


def _call(item: Any, where: str) -> ToolCall:
    if not isinstance(item, dict):
        raise RowError("bad_tool_arguments", f"{where}: a call must be an object, found {json_type(item)}")
    inner = item.get("function")
    body = inner if isinstance(inner, dict) else item
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise RowError("bad_tool_arguments", f"{where}: the call names no function; its keys are {_keys(body)}")
    present = [key for key in ("arguments", "parameters", "input") if body.get(key) is not None]
    arguments = body[present[0]] if present else {}
    if isinstance(arguments, str):
        arguments = _decoded(arguments, f"{where}, arguments of {name}") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        found = json_type(arguments)
        raise RowError("bad_tool_arguments", f"{where}: the arguments of {name} must be an object, found {found}")
    call_id = item.get("id")
    if call_id is not None and not isinstance(call_id, str):
        raise RowError("wrong_type", f"{where}: the id of a call must be a string, found {json_type(call_id)}")
    return ToolCall(name, arguments, call_id)


def _decoded(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError("bad_tool_arguments", f"{where}: not JSON ({error}): {text[:60]!r}") from error


def tools_from(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools a conversation offers, from a list or the JSON string of one; a bare function gets its usual wrapper.

    Raises:
        RowError: `bad_tools`.
    """
    if value is None or value in ("", [], {}):
        return ()
    if isinstance(value, str):
        if not value.strip():
            return ()
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError("bad_tools", f"`tools` is not JSON ({error}): {value[:60]!r}") from error
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise RowError("bad_tools", f"`tools` must be a list of objects, found {json_type(items)}")
    return tuple(_tool(item, index) for index, item in enumerate(items))


def _tool(item: Any, index: int) -> Mapping[str, Any]:
    if isinstance(item, str):
        try:
            item = json.loads(item)
        except (ValueError, RecursionError) as error:
            raise RowError("bad_tools", f"tool {index} is not JSON ({error}): {item[:60]!r}") from error
    if not isinstance(item, dict):
        raise RowError("bad_tools", f"tool {index} must be an object, found {json_type(item)}")
    body = item.get("function", item)
    named = isinstance(body, dict) and isinstance(body.get("name"), str)
    if not named and "type" not in item:
        raise RowError("bad_tools", f"tool {index} names no function; its keys are {_keys(item)}")
    # Templates are written for the wrapped form; a bare {"name", "parameters"} means the same.
    return {"type": "function", "function": item} if named and body is item and "type" not in item else item


def _keys(item: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, item))[:8]) or "none"
