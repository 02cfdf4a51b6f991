"""Spans as OpenInference (Phoenix) writes them: attributes in flat columns, or nested in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, call, json_at, list_at, object_at, text_at

_PREFIX: Final = "attributes."


def span(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The messages and tools of a call of a model.

    Raises:
        RowError: `unsupported_content`, `wrong_type`, `outer_run`.
    """
    attributes = _nested({key.removeprefix(_PREFIX): value for key, value in _flat(row).items() if value is not None})
    model = object_at(attributes.get("llm"), "the attributes `llm`")
    asked = [_turn(item, f"llm.input_messages[{index}]") for index, item in _items(model.get("input_messages"))]
    reply = [_turn(item, f"llm.output_messages[{index}]") for index, item in _items(model.get("output_messages"))]
    tools = [json_at(object_at(item.get("tool", item), "llm.tools").get("json_schema"), "llm.tools")
             for _, item in _items(model.get("tools"))]  # fmt: skip
    return {"prompt": asked, "completion": reply, "tools": tools, "metadata": {"model": model.get("model_name")}}


def _flat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = row.get("attributes")
    return attributes if isinstance(attributes, dict) else row


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Objects in place of names with dots; a number in a name is the key of an item."""
    root: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split(".")
        level = root
        for folder in folders:
            inner = level.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise RowError("wrong_type", f"`{name}` stands below a value")
            level = inner
        level[last] = value
    return root


def _items(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """The items by number, 10 behind 2, of a list or of an object whose keys are numbers."""
    if value is None:
        return []
    value = json_at(value, "the attributes")
    if isinstance(value, dict):
        if not all(key.isdigit() for key in value):
            raise RowError("wrong_type", f"items are numbered, found {', '.join(list(value)[:4])}")
        value = [value[key] for key in sorted(value, key=int)]
    items = [object_at(item, "an item of the attributes") for item in list_at(value, "the attributes")]
    return list(enumerate(_nested(item) if any("." in key for key in item) else item for item in items))


def _turn(item: Mapping[str, Any], where: str) -> Turn:
    message = object_at(item.get("message", item), where)
    turn: Turn = {"role": message.get("role"), "content": message.get("content")}
    contents = [_text(part, where) for _, part in _items(message.get("contents"))]
    if contents:
        turn["content"] = "".join(contents)
    for key in ("tool_call_id", "name"):
        if message.get(key):
            turn[key] = message[key]
    calls = [object_at(entry.get("tool_call", entry), where) for _, entry in _items(message.get("tool_calls"))]
    if calls:
        turn["tool_calls"] = [_call(entry, where) for entry in calls]
    return turn


def _call(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    function = object_at(entry.get("function"), f"{where}.tool_call.function")
    return call(
        text_at(function.get("name"), f"{where}.tool_call.function.name"), function.get("arguments"), entry.get("id")
    )


def _text(part: Mapping[str, Any], where: str) -> str:
    content = object_at(part.get("message_content", part), where)
    if content.get("type", "text") != "text":
        raise RowError("unsupported_content", f"{where}: {content.get('type')!r} is no text; only text is trained")
    return text_at(content.get("text"), f"{where}.message_content.text")
