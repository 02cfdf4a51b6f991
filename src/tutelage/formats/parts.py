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


def parts_of(parts: Sequence[Any], where: str, context: RowContext) -> Parts:
    """Read a list of content parts.

    Raises:
        RowError: `unsupported_content`, `wrong_type`, `unclear_mark`, or a reason of the calls in it.
    """
    read = Parts()
    for number, part in enumerate(parts):
        place = f"{where}, part {number}"
        if isinstance(part, str):
            read.texts.append(part)
            continue
        if not isinstance(part, dict):
            raise RowError("wrong_type", f"{place}: a content part must be an object, found {json_type(part)}")
        kind, value, known = _kind(part, place)
        if kind == "call":
            read.calls += calls_from(part if value is None else value, place, context)
        elif kind == "result":
            read.results.append(_result(part if value is None else value, place, context))
        elif isinstance(value, str):
            (read.texts if kind == "text" else read.thoughts).append(value)
        elif kind != "nothing":
            raise RowError("wrong_type", f"{place}: the text must be a string, found {json_type(value)}")
        if not known >= part.keys():
            _pass_over(part, known, place, context)
    return read


def is_parts(value: Sequence[Any]) -> bool:
    """Whether a list is made of content parts, not of a tool's own data."""
    return all(
        isinstance(part, str)
        or (isinstance(part, dict) and (_is_part_type(part.get("type")) or any(key in BLOCK_TYPES for key in part)))
        for part in value
    )


def _is_part_type(kind: Any) -> bool:
    return isinstance(kind, str) and (kind in PART_TYPES or kind in MEDIA_TYPES)


def result_text(value: Any, where: str, context: RowContext) -> str | None:
    """What a tool gave back as text: text as it is, parts of text joined, anything else as JSON.

    Raises:
        RowError: `wrong_type` for what JSON cannot write, `nested_too_deep`, `unsupported_content`.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and is_parts(value):
        return parts_of(value, where, context).text
    nulls = holds_null(value, where, not_json="wrong_type")
    if context.filled and nulls and (whole := without_nulls(value)) != value:
        context.remarks.nulls("the results of tools")
        value = whole
    return json.dumps(value, ensure_ascii=False)


def _kind(part: Mapping[str, Any], place: str) -> tuple[str, Any, frozenset[str]]:
    """What a part is, the value that holds it (None: the part itself), and the keys that are read of it."""
    named = part.get("type")
    if named:
        kind = PART_TYPES.get(named) if isinstance(named, str) else None
        if kind is None:
            raise RowError("unsupported_content", f"{place}: {named!r} is not text; only text is trained")
        if kind == "result":
            return kind, None, _RESULT_KEYS
        value = next((part[key] for key in PART_KEYS if part.get(key) is not None), None)
        return kind, value, _CALL_KEYS if kind == "call" else _TEXT_KEYS
    held = [key for key, value in part.items() if value is not None and key != "type"]
    for key in held:
        if key in BLOCK_TYPES:
            kind, value = BLOCK_TYPES[key], part[key]
            if kind == "reasoning" and isinstance(value, dict):
                inner = value.get("reasoningText")
                value = inner.get("text") if isinstance(inner, dict) else inner
            return kind, value, frozenset({"type", key})
    value = next((part[key] for key in PART_KEYS if part.get(key) is not None), None)
    if value is None and held:
        raise RowError("unsupported_content", f"{place}: a block of `{'`, `'.join(held)}` is not text; only text is")
    return "text", value, _TEXT_KEYS


def _result(part: Any, place: str, context: RowContext) -> Message:
    if not isinstance(part, dict):
        raise RowError("wrong_type", f"{place}: a result must be an object, found {json_type(part)}")
    content = next((part[key] for key in RESULT_KEYS["content"] if part.get(key) is not None), "")
    if isinstance(content, list):
        content = parts_of([_bare(item) for item in content], place, context).text
    numbered = next((part[key] for key in RESULT_KEYS["id"] if part.get(key) is not None), None)
    text = result_text(content, place, context)
    return Message("tool", text or "", tool_call_id=call_id(numbered, "the id of a result", place))


def _bare(item: Any) -> Any:
    """A block `{"json": value}` of a Bedrock result as the text of its value; any other as it is."""
    if isinstance(item, dict) and [key for key, value in item.items() if value is not None] == ["json"]:
        holds_null(item, "a result", not_json="wrong_type")
        return json.dumps(item["json"], ensure_ascii=False)
    return item


def _pass_over(part: Mapping[str, Any], known: frozenset[str], place: str, context: RowContext) -> None:
    unread = [key for key, value in part.items() if value is not None and key not in known]
    for key in unread:
        if key in MARKS and part[key] not in (True, 1):
            raise RowError("unclear_mark", f"{place}: `{key}` marks a part of a turn; only whole turns are weighed")
    context.remarks.unread("content part", unread)
