"""One turn of a conversation, as the several formats write it -> Message."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tutelage.formats.names import CALL_ROLES, PART_KEYS, PART_TYPES, ROLES, TURN_KEYS, nearest
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.toolcalls import calls_from
from tutelage.types import Message, Role, ToolCall

_NO_CALLS: tuple[ToolCall, ...] = ()


def turns_from(value: Any, field: str) -> list[Message]:
    """The messages of a list of turns, or of the JSON string of one.

    Args:
        value: list of {role|from, content|value, ...} objects, or of {"human": ..., "assistant": ...} pairs.
        field: the column it stands in, for the words of an error.

    Raises:
        RowError: `bad_json`, `wrong_type`, `no_messages`, `unknown_role`, `missing_field`, `bad_tool_arguments`,
            `unsupported_content`.
    """
    if isinstance(value, str):
        value = decoded(value, field)
    if not isinstance(value, list):
        raise RowError("wrong_type", f"`{field}` must be a list of turns, found {json_type(value)}")
    if not value:
        raise RowError("no_messages", f"`{field}` is an empty list")
    messages: list[Message] = []
    for index, turn in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(turn, dict):
            raise RowError("wrong_type", f"{where}: a turn must be an object, found {json_type(turn)}")
        role_name = first_of(turn, TURN_KEYS["role"])
        if role_name is None:
            messages += _pair(turn, where)
        else:
            messages.append(_message(turn, role_name, where))
    return messages


def decoded(text: str, field: str) -> Any:
    """The JSON value a cell holds as text.

    Raises:
        RowError: `bad_json`.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        python = "; it looks like Python's own notation, write it with json.dumps" if "{'" in text[:3] else ""
        raise RowError("bad_json", f"`{field}` holds no JSON ({error}): {text[:40]!r}{python}") from error


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of these names that is there and not null, else None."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            return value
    return None


def _pair(turn: Mapping[str, Any], where: str) -> list[Message]:
    said = first_of(turn, TURN_KEYS["pair_user"])
    reply = first_of(turn, TURN_KEYS["pair_assistant"])
    if said is None or reply is None:
        keys = ", ".join(sorted(map(str, turn))[:8]) or "none"
        raise RowError("missing_field", f"{where}: no `role` or `from`; its keys are {keys}")
    for text in (said, reply):
        if not isinstance(text, str):
            raise RowError("wrong_type", f"{where}: the text of a turn must be a string, found {json_type(text)}")
    return [Message("user", _said(said, where)), Message("assistant", reply)]


def _said(text: str, where: str) -> str:
    if not text or text.isspace():
        raise RowError("missing_field", f"{where}: the user's turn is empty")
    return text


def _message(turn: Mapping[str, Any], role_name: Any, where: str) -> Message:
    role = role_of(role_name, where)
    value = first_of(turn, TURN_KEYS["content"])
    content: str | None
    reasoning: str | None = None
    calls = _NO_CALLS
    if role_name.strip().lower() in CALL_ROLES:
        content, calls = None, calls_from(value, where)
    elif value is None or isinstance(value, str):
        content = value
    elif isinstance(value, list):
        content, reasoning, calls = _parts(value, where)
    else:
        raise RowError("wrong_type", f"{where}: the text of a turn must be a string, found {json_type(value)}")
    if role == "user":
        content = _said(content or "", where)
    elif content is None and role != "assistant":
        raise RowError("missing_field", f"{where}: the {role} turn has no text")
    if value is not None and len(turn) == 2:
        return Message(role, content, reasoning, calls)
    return Message(
        role,
        content,
        reasoning=_text(first_of(turn, TURN_KEYS["reasoning"]), "reasoning", where) or reasoning,
        tool_calls=calls + _calls_beside(turn, where),
        name=_text(turn.get("name"), "name", where),
        tool_call_id=_text(turn.get("tool_call_id"), "tool_call_id", where),
        weight=_weight(turn, where),
    )


def role_of(name: Any, where: str) -> Role:
    """The role a format's own name for it means.

    Raises:
        RowError: `unknown_role`, with the nearest known name.
    """
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is not None:
        return role
    if not isinstance(name, str):
        raise RowError("wrong_type", f"{where}: the role must be a string, found {json_type(name)}")
    role = ROLES.get(name.strip().lower())
    if role is None:
        raise RowError("unknown_role", f"{where}: '{name}'" + nearest(name, list(ROLES)))
    return role


def _parts(parts: list[Any], where: str) -> tuple[str | None, str | None, tuple[ToolCall, ...]]:
    """Text, reasoning and calls of a list of content parts; the pieces of a kind are joined as they stand."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls = _NO_CALLS
    for number, part in enumerate(parts):
        place = f"{where}, part {number}"
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise RowError("wrong_type", f"{place}: a content part must be an object, found {json_type(part)}")
        named = part.get("type") or "text"
        kind = PART_TYPES.get(named) if isinstance(named, str) else None
        if kind is None:
            raise RowError("unsupported_content", f"{place}: {named!r} is not text; only text is trained")
        value = first_of(part, PART_KEYS)
        if kind == "call":
            calls += calls_from(part if value is None else value, place)
        elif isinstance(value, str):
            (texts if kind == "text" else thoughts).append(value)
        else:
            raise RowError("wrong_type", f"{place}: the text must be a string, found {json_type(value)}")
    return "".join(texts) if texts else None, "".join(thoughts) if thoughts else None, calls


def _calls_beside(turn: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    listed = turn.get("tool_calls")
    calls = calls_from(listed, where) if listed else _NO_CALLS
    single = turn.get("function_call")
    return calls + calls_from(single, where) if single else calls


def _text(value: Any, key: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RowError("wrong_type", f"{where}: `{key}` must be a string, found {json_type(value)}")


def _weight(turn: Mapping[str, Any], where: str) -> float | None:
    trained = turn.get("train")
    if isinstance(trained, bool):
        return 1.0 if trained else 0.0
    if trained is not None:
        raise RowError("wrong_type", f"{where}: `train` must be true or false, found {json_type(trained)}")
    weight = first_of(turn, TURN_KEYS["weight"])
    if weight is None:
        return None
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise RowError("wrong_type", f"{where}: the weight must be a number from 0 up, found {weight!r}")
    return float(weight)
