"""The parts of a turn's content, as OpenAI, Anthropic and Bedrock write them: text, reasoning, calls, results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tutelage.formats.names import BLOCK_TYPES, CALL_KEYS, MARKS, MEDIA_TYPES, PART_KEYS, PART_TYPES, RESULT_KEYS
from tutelage.formats.nested import holds_null
from tutelage.formats.nulls import without_nulls
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.toolcalls import call_id, calls_from
from tutelage.types import Message, ToolCall

_TEXT_KEYS: Final = frozenset({"type", *PART_KEYS})
_CALL_KEYS: Final = _TEXT_KEYS.union(*CALL_KEYS.values())
_RESULT_KEYS: Final = _TEXT_KEYS.union(*RESULT_KEYS.values())


@dataclass(slots=True)
class Parts:
    """What the parts of one content say, the pieces of a kind in order.

    Attributes:
        texts: pieces of text.
        thoughts: pieces of reasoning.
        calls: tool calls.
        results: results of calls, each a tool turn of its own.
    """

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    results: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """The text, its pieces joined as they stand; None where there is none."""
        return "".join(self.texts) if self.texts else None

    @property
    def reasoning(self) -> str | None:
        """The reasoning, joined alike."""
        return "".join(self.thoughts) if self.thoughts else None


def parts_of(content: Sequence[Any], where: str, context: RowContext) -> Parts:
    """Read a list of content parts.

    Raises:
        RowError: `unsupported_content`, `wrong_type`, `unclear_mark`, or a reason of the calls in it.
    """
    parts = Parts()
    for part_index, content_part in enumerate(content):
        location = f"{where}, part {part_index}"
        if isinstance(content_part, str):
            parts.texts.append(content_part)
            continue
        if not isinstance(content_part, dict):
            raise RowError(
                "wrong_type", f"{location}: a content part must be an object, found {json_type(content_part)}"
            )
        kind, value, read_keys = _part_kind(content_part, location)
        if kind == "call":
            parts.calls += calls_from(content_part if value is None else value, location, context)
        elif kind == "result":
            parts.results.append(_tool_result(content_part if value is None else value, location, context))
        elif isinstance(value, str):
            (parts.texts if kind == "text" else parts.thoughts).append(value)
        elif kind != "nothing":
            raise RowError("wrong_type", f"{location}: the text must be a string, found {json_type(value)}")
        if not read_keys >= content_part.keys():
            _note_unread_keys(content_part, read_keys, location, context)
    return parts


def is_parts(value: Sequence[Any]) -> bool:
    """Whether a list is made of content parts, not of a tool's own data."""
    return all(
        isinstance(content_part, str)
        or (
            isinstance(content_part, dict)
            and (_is_part_type(content_part.get("type")) or any(key in BLOCK_TYPES for key in content_part))
        )
        for content_part in value
    )


def _is_part_type(part_type: Any) -> bool:
    return isinstance(part_type, str) and (part_type in PART_TYPES or part_type in MEDIA_TYPES)


def result_text(value: Any, where: str, context: RowContext) -> str | None:
    """What a tool gave back as text: text as it is, parts of text joined, anything else as JSON.

    Raises:
        RowError: `wrong_type` for what JSON cannot write, `nested_too_deep`, `unsupported_content`.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and is_parts(value):
        return parts_of(value, where, context).text
    has_null = holds_null(value, where, not_json="wrong_type")
    if context.filled and has_null and (without_filled := without_nulls(value)) != value:
        context.remarks.nulls("the results of tools")
        value = without_filled
    return json.dumps(value, ensure_ascii=False)


def _part_kind(content_part: Mapping[str, Any], where: str) -> tuple[str, Any, frozenset[str]]:
    """What a part is, the value that holds it (None: the part itself), and the keys that are read of it."""
    part_type = content_part.get("type")
    if part_type:
        kind = PART_TYPES.get(part_type) if isinstance(part_type, str) else None
        if kind is None:
            raise RowError("unsupported_content", f"{where}: {part_type!r} is not text; only text is trained")
        if kind == "result":
            return kind, None, _RESULT_KEYS
        value = next((content_part[key] for key in PART_KEYS if content_part.get(key) is not None), None)
        return kind, value, _CALL_KEYS if kind == "call" else _TEXT_KEYS
    filled_keys = [key for key, value in content_part.items() if value is not None and key != "type"]
    for key in filled_keys:
        if key in BLOCK_TYPES:
            kind, value = BLOCK_TYPES[key], content_part[key]
            if kind == "reasoning" and isinstance(value, dict):
                inner = value.get("reasoningText")
                value = inner.get("text") if isinstance(inner, dict) else inner
            return kind, value, frozenset({"type", key})
    value = next((content_part[key] for key in PART_KEYS if content_part.get(key) is not None), None)
    if value is None and filled_keys:
        raise RowError(
            "unsupported_content", f"{where}: a block of `{'`, `'.join(filled_keys)}` is not text; only text is"
        )
    return "text", value, _TEXT_KEYS


def _tool_result(content_part: Any, where: str, context: RowContext) -> Message:
    if not isinstance(content_part, dict):
        raise RowError("wrong_type", f"{where}: a result must be an object, found {json_type(content_part)}")
    content = next((content_part[key] for key in RESULT_KEYS["content"] if content_part.get(key) is not None), "")
    if isinstance(content, list):
        content = parts_of([_block_text(item) for item in content], where, context).text
    result_id = next((content_part[key] for key in RESULT_KEYS["id"] if content_part.get(key) is not None), None)
    text = result_text(content, where, context)
    return Message("tool", text or "", tool_call_id=call_id(result_id, "the id of a result", where))


def _block_text(item: Any) -> Any:
    """A block `{"json": value}` of a Bedrock result as the text of its value; any other as it is."""
    if isinstance(item, dict) and [key for key, value in item.items() if value is not None] == ["json"]:
        holds_null(item, "a result", not_json="wrong_type")
        return json.dumps(item["json"], ensure_ascii=False)
    return item


def _note_unread_keys(
    content_part: Mapping[str, Any], read_keys: frozenset[str], where: str, context: RowContext
) -> None:
    unread_keys = [key for key, value in content_part.items() if value is not None and key not in read_keys]
    for key in unread_keys:
        if key in MARKS and content_part[key] not in (True, 1):
            raise RowError("unclear_mark", f"{where}: `{key}` marks a part of a turn; only whole turns are weighed")
    context.remarks.unread("content part", unread_keys)
