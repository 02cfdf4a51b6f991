"""What readers of several families need to make rows in a base form."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from tutelage.formats.nested import document
from tutelage.formats.rawrow import RowError, json_type

Turn = dict[str, Any]
"""A turn as OpenAI writes it: role, content, reasoning_content, tool_calls, tool_call_id, name, weight."""


def text_at(value: Any, where: str) -> str:
    """The value, which must be a text.

    Raises:
        RowError: `wrong_type`.
    """
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{where} must be a string, found {json_type(value)}")
    return value


def object_at(value: Any, where: str) -> Mapping[str, Any]:
    """The value, which must be an object.

    Raises:
        RowError: `wrong_type`.
    """
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"{where} must be an object, found {json_type(value)}")
    return value


def list_at(value: Any, where: str) -> list[Any]:
    """The value, which must be a list.

    Raises:
        RowError: `wrong_type`.
    """
    if not isinstance(value, list):
        raise RowError("wrong_type", f"{where} must be a list, found {json_type(value)}")
    return value


def is_word(value: Any, words: Collection[str]) -> bool:
    """Whether a value is one of these words; a list or an object, which no set can be asked for, is none."""
    return isinstance(value, str) and value in words


def json_at(value: Any, where: str) -> Any:
    """The value, decoded where it is a text that begins as a JSON list or object does.

    Raises:
        RowError: `bad_json`, or another reason of `nested.document`.
    """
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        return document(value, "bad_json", where)
    return value


def call(name: str, arguments: Any, call_id: Any = None) -> dict[str, Any]:
    """A tool call as OpenAI writes it; arguments as an object or as their JSON text."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result_content(value: Any) -> str:
    """What a tool gave back as text: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def only_last_reply(turns: list[Any]) -> list[Any]:
    """The turns, with a weight of 0 on every reply but the last, which keeps its own."""
    replies = [index for index, turn in enumerate(turns) if isinstance(turn, dict) and turn.get("role") == "assistant"]
    return [{**turn, "weight": 0} if index in replies[:-1] else turn for index, turn in enumerate(turns)]
