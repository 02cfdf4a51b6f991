"""One turn of a conversation, as the several formats write it -> Message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tutelage.formats.marks import is_mark, mask_hides, weight_of
from tutelage.formats.names import CALL_ROLES, MARKS, ROLES, TURN_KEYS, nearest
from tutelage.formats.nested import document
from tutelage.formats.parts import Parts, parts_of, result_text
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.toolcalls import call_id, calls_from
from tutelage.types import Message, Role, ToolCall

_NO_CALLS: tuple[ToolCall, ...] = ()
_PLAIN_KEYS: Final = tuple(zip(TURN_KEYS["role"], TURN_KEYS["content"], strict=True))
_PLAIN_ROLES: Final = {name: role for name, role in ROLES.items() if name not in CALL_ROLES}
_PAIR_KEYS: Final = frozenset((*TURN_KEYS["pair_user"], *TURN_KEYS["pair_assistant"]))
_TURN_KEYS: Final = frozenset(
    name for kind in ("role", "content", "reasoning", "calls", "other") for name in TURN_KEYS[kind]
)


def turns_from(value: Any, field: str, context: RowContext) -> list[Message]:
    """The messages of a list of turns, or of the JSON string of one.

    Args:
        value: list of {role|from, content|value, ...} objects, or of {"human": ..., "assistant": ...} pairs.
        field: the column it stands in, for the words of an error.
        context: the row's tools, and where keys that nothing reads are named.

    Raises:
        RowError: `bad_json`, `wrong_type`, `no_messages`, `unknown_role`, `missing_field`, `bad_tool_arguments`,
            `unsupported_content`, `unclear_mark`, or a reason of `nested.document`.
    """
    if isinstance(value, str):
        value = json_cell(value, field)
    if not isinstance(value, list):
        raise RowError("wrong_type", f"`{field}` must be a list of turns, found {json_type(value)}")
    if not value:
        raise RowError("no_messages", f"`{field}` is an empty list")
    messages: list[Message] = []
    context.mask_hides = None
    for index, turn in enumerate(value):
        if type(turn) is dict and len(turn) == 2 and (plain := _plain_message(turn, context)) is not None:
            messages.append(plain)
            continue
        where = f"{field}[{index}]"
        if not isinstance(turn, dict):
            raise RowError("wrong_type", f"{where}: a turn must be an object, found {json_type(turn)}")
        role_name = first_value(turn, TURN_KEYS["role"])
        if role_name is None:
            messages += _pair_messages(turn, where, context, value)
            continue
        content = first_value(turn, TURN_KEYS["content"])
        parts = None
        if type(content) is list and _holds_parts(role_name, content):
            parts = parts_of(content, where, context)
        if parts is not None and parts.results:
            messages += _result_messages(turn, role_name, parts, where)
        else:
            messages.append(_message(turn, role_name, (content, parts), (where, value), context))
    return messages


def _plain_message(turn: Mapping[str, Any], context: RowContext) -> Message | None:
    """The message of a turn that is a role and its text, as most are; None for any other."""
    for role_key, content_key in _PLAIN_KEYS:
        content = turn.get(content_key)
        if type(content) is not str:
            continue
        name = turn.get(role_key)
        role = _PLAIN_ROLES.get(name) if type(name) is str else None
        if role is None or (role == "user" and (not content or content.isspace())):
            return None
        if role == "tool" and "<tool_response>" in content:
            context.wrapped_results = True
        return Message(role, content)
    return None


def json_cell(text: str, field: str) -> Any:
    """The JSON value a cell holds as text.

    Raises:
        RowError: `bad_json`, or another reason of `nested.document`.
    """
    try:
        return document(text, "bad_json", f"`{field}`")
    except RowError as error:
        if error.reason == "bad_json" and "{'" in text[:3]:
            python = "; it looks like Python's own notation, write it with json.dumps"
            raise RowError("bad_json", error.detail + python) from error
        raise


def first_value(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of these names that is there and not null, else None."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            return value
    return None


def _pair_messages(turn: Mapping[str, Any], where: str, context: RowContext, turns: Sequence[Any]) -> list[Message]:
    prompt = first_value(turn, TURN_KEYS["pair_user"])
    reply = first_value(turn, TURN_KEYS["pair_assistant"])
    if prompt is None or reply is None:
        keys = ", ".join(sorted(map(str, turn))[:8]) or "none"
        raise RowError("missing_field", f"{where}: no `role` or `from`; its keys are {keys}")
    for text in (prompt, reply):
        if not isinstance(text, str):
            raise RowError("wrong_type", f"{where}: the text of a turn must be a string, found {json_type(text)}")
    weight = _weight(turn, _PAIR_KEYS, (where, turns), context) if len(turn) > 2 else None
    return [Message("user", _user_text(prompt, where)), Message("assistant", reply, weight=weight)]


def _user_text(text: str, where: str) -> str:
    if not text or text.isspace():
        raise RowError("missing_field", f"{where}: the user's turn is empty")
    return text


def _holds_parts(role_name: Any, content: list[Any]) -> bool:
    if not isinstance(role_name, str):
        return False
    name = role_name.strip().lower()
    # What a tool gives back may be a list of its own data.
    return name not in CALL_ROLES and (ROLES.get(name) != "tool" or _has_results(content))


def _has_results(content: list[Any]) -> bool:
    return any(
        isinstance(content_part, dict)
        and (content_part.get("type") == "tool_result" or content_part.get("toolResult") is not None)
        for content_part in content
    )


def _result_messages(turn: Mapping[str, Any], role_name: Any, parts: Parts, where: str) -> list[Message]:
    """The tool turns of the results that stand in a user's or tool's turn, and the user's words after them."""
    role = role_of(role_name, where)
    if role not in {"user", "tool"} or parts.calls:
        raise RowError("unsupported_content", f"{where}: the {role} turn holds a result of a tool")
    text = parts.text
    if text is None or text.isspace():
        return parts.results
    return [*parts.results, Message(role, text, name=_optional_text(turn.get("name"), "name", where))]


def _message(
    turn: Mapping[str, Any],
    role_name: Any,
    content_parts: tuple[Any, Parts | None],
    location: tuple[str, Sequence[Any]],
    context: RowContext,
) -> Message:
    where = location[0]
    role = role_of(role_name, where)
    value, parts = content_parts
    content: str | None
    reasoning: str | None = None
    calls = _NO_CALLS
    if parts is not None:
        content, reasoning, calls = parts.text, parts.reasoning, parts.calls
    elif role_name.strip().lower() in CALL_ROLES:
        content, calls = None, calls_from(value, where, context)
    elif value is None or isinstance(value, str):
        content = value
    elif role == "tool":
        content = result_text(value, where, context)
    else:
        raise RowError("wrong_type", f"{where}: the text of a turn must be a string, found {json_type(value)}")
    if role == "tool" and content is not None and "<tool_response>" in content:
        context.wrapped_results = True
    if role == "user":
        content = _user_text(content or "", where)
    elif content is None and role != "assistant":
        raise RowError("missing_field", f"{where}: the {role} turn has no text")
    if value is not None and len(turn) == 2:
        return Message(role, content, reasoning, calls)
    return Message(
        role,
        content,
        reasoning=_optional_text(first_value(turn, TURN_KEYS["reasoning"]), "reasoning", where) or reasoning,
        tool_calls=calls + _calls_beside(turn, where, context),
        name=_optional_text(turn.get("name"), "name", where),
        tool_call_id=call_id(turn.get("tool_call_id"), "`tool_call_id`", where),
        weight=_weight(turn, _TURN_KEYS, location, context, trained=role == "assistant"),
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


def _calls_beside(turn: Mapping[str, Any], where: str, context: RowContext) -> tuple[ToolCall, ...]:
    calls = _NO_CALLS
    for key in TURN_KEYS["calls"]:
        if listed := turn.get(key):
            calls += calls_from(listed, where, context)
    return calls


def _optional_text(value: Any, key: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RowError("wrong_type", f"{where}: `{key}` must be a string, found {json_type(value)}")


def _weight(
    turn: Mapping[str, Any],
    read_keys: frozenset[str],
    location: tuple[str, Sequence[Any]],
    context: RowContext,
    *,
    trained: bool = True,
) -> float | None:
    """The weight that the turn's marks give it; keys that are neither known nor marks are named in a note."""
    extra_keys = turn.keys() - read_keys
    if not extra_keys:
        return None
    marks = [key for key in turn if key in extra_keys and key in MARKS and is_mark(key, turn[key])]
    unread_keys = [key for key in extra_keys.difference(marks) if turn[key] is not None]
    if unread_keys:
        context.remarks.unread("turn", unread_keys)
    if "mask" in marks and not trained:
        marks.remove("mask")  # on a turn that is never trained either sense says the same
    if not marks:
        return None
    if "mask" in marks and context.mask_hides is None:
        context.mask_hides = mask_hides(location[1], ROLES, TURN_KEYS["role"])
    return weight_of(turn, marks, location[0], mask_hides=context.mask_hides is True)
