"""The five shapes of a row: which of them a row fits, and how each becomes a Conversation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tutelage.formats.names import SHAPES_BY_PRIORITY, TURN_KEYS, Fields
from tutelage.formats.rawrow import RawRow, RowError, json_type
from tutelage.formats.toolcalls import tools_from
from tutelage.formats.turns import decoded, first_of, turns_from
from tutelage.types import Change, Conversation, Message


class ShapeTable:
    """Which shapes a row fits: those of which it holds a value for every required field."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._required = {shape: fields.required(shape) for shape in SHAPES_BY_PRIORITY}

    def fits(self, row: Mapping[str, Any], shape: str) -> bool:
        """Whether the row holds all that the shape needs."""
        return all(any(row.get(name) is not None for name in names) for names in self._required[shape])

    def touches(self, row: Mapping[str, Any], shape: str) -> bool:
        """Whether the row holds something that the shape needs."""
        return any(row.get(name) is not None for names in self._required[shape] for name in names)

    def best(self, row: Mapping[str, Any]) -> str | None:
        """The most telling shape the row fits. A row with a role is a turn on its own: never taken for a document."""
        for shape in SHAPES_BY_PRIORITY:
            if self.fits(row, shape):
                return None if shape == "text" and first_of(row, TURN_KEYS["role"]) is not None else shape
        return None

    def choose(self, row: Mapping[str, Any], file_shape: str) -> str:
        """The shape to read a row by: its file's, unless it holds nothing of that and fits another."""
        if self.touches(row, file_shape):
            return file_shape
        return self.best(row) or file_shape


def conversation_from(row: RawRow, shape: str, fields: Fields) -> tuple[Conversation, Change | None]:
    """The conversation a row means, and what was changed on the way.

    Raises:
        RowError: the row cannot become one.
    """
    raw = row.fields
    for name in fields.media:
        if raw.get(name):
            raise RowError("unsupported_content", f"`{name}` holds something; only text is trained")
    if shape == "text":
        return Conversation((_document(raw, fields),), row.address), None
    messages = _READERS[shape](raw, fields)
    change = None
    last = max((index for index, one in enumerate(messages) if one.role == "assistant"), default=-1)
    if last < 0:
        roles = ", ".join(dict.fromkeys(one.role for one in messages))
        raise RowError("no_reply", f"no assistant turn; the roles are {roles}")
    if last + 1 < len(messages):
        gone = messages[last + 1 :]
        roles = ", ".join(one.role for one in gone)
        change = Change(row.address, "trailing_turns_removed", f"after the last assistant turn: {roles}")
        del messages[last + 1 :]
    for index, one in enumerate(messages):
        if one.role == "assistant" and not (_holds(one.content) or _holds(one.reasoning) or one.tool_calls):
            raise RowError("empty_reply", f"turn {index}: the assistant says nothing, thinks nothing, calls nothing")
    conversation = Conversation(
        tuple(messages),
        row.address,
        tools=tools_from(first_of(raw, fields.tools)),
        template_arguments=_template_arguments(first_of(raw, fields.template_arguments)),
    )
    return conversation, change


def _holds(text: str | None) -> bool:
    return bool(text) and not str(text).isspace()


def _named(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of the names that holds a value, and the value; the first name and None where none does."""
    for name in names:
        value = raw.get(name)
        if value is not None:
            return name, value
    return names[0], None


def _string(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, str]:
    name, value = _named(raw, names)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _missing(raw, names)
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{name}` must be a string, found {json_type(value)}")
    return name, value


def _missing(raw: Mapping[str, Any], names: tuple[str, ...]) -> RowError:
    found = ", ".join(sorted(map(str, raw))[:12])
    return RowError("missing_field", f"no `{'` or `'.join(names)}`; the row has {found or 'no columns'}")


def _optional(raw: Mapping[str, Any], names: tuple[str, ...]) -> str:
    name, value = _named(raw, names)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{name}` must be a string, found {json_type(value)}")
    return value if _holds(value) else ""


def _document(raw: Mapping[str, Any], fields: Fields) -> Message:
    name, text = _string(raw, fields.text)
    if not _holds(text):
        raise RowError("missing_field", f"`{name}` is empty")
    return Message("text", text)


def _before(raw: Mapping[str, Any], fields: Fields) -> list[Message]:
    """The system turn and the earlier turns that stand in columns of their own."""
    messages = []
    if system := _optional(raw, fields.system):
        messages.append(Message("system", system))
    name, history = _named(raw, fields.history)
    if isinstance(history, str):
        history = decoded(history, name) if history.strip() else None
    if history is None:
        return messages
    if not isinstance(history, list):
        raise RowError("wrong_type", f"`{name}` must be a list of [question, answer], found {json_type(history)}")
    if history and isinstance(history[0], dict):
        return messages + turns_from(history, name)
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError("wrong_type", f"{name}[{index}] must be [question, answer], both strings")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


def _alpaca(raw: Mapping[str, Any], fields: Fields) -> list[Message]:
    name, instruction = _string(raw, fields.instruction)
    prompt = "\n\n".join(text for text in (instruction, _optional(raw, fields.input)) if _holds(text))
    if not prompt:
        raise RowError("missing_field", f"`{name}` and `{fields.input[0]}` are both empty")
    return [*_before(raw, fields), Message("user", prompt), Message("assistant", _string(raw, fields.response)[1])]


def _prompt_completion(raw: Mapping[str, Any], fields: Fields) -> list[Message]:
    messages = _before(raw, fields)
    name, prompt = _named(raw, fields.prompt)
    if isinstance(prompt, list):
        # A prompt is context: what the assistant says in it is not what the row asks to learn.
        messages += [_context(one) for one in turns_from(prompt, name)]
    else:
        name, text = _string(raw, fields.prompt)
        if not _holds(text):
            raise RowError("missing_field", f"`{name}` is empty")
        messages.append(Message("user", text))
    name, reply = _named(raw, fields.response)
    if isinstance(reply, list):
        return messages + turns_from(reply, name)
    if isinstance(reply, dict):
        return messages + turns_from([reply], name)
    return [*messages, Message("assistant", _string(raw, fields.response)[1])]


def _context(message: Message) -> Message:
    if message.role != "assistant" or message.weight is not None:
        return message
    return replace(message, weight=0.0)


def _messages(raw: Mapping[str, Any], fields: Fields) -> list[Message]:
    return _turns(raw, fields, fields.messages)


def _sharegpt(raw: Mapping[str, Any], fields: Fields) -> list[Message]:
    return _turns(raw, fields, fields.conversations)


def _turns(raw: Mapping[str, Any], fields: Fields, names: tuple[str, ...]) -> list[Message]:
    name, value = _named(raw, names)
    if value is None:
        raise _missing(raw, names)
    messages = turns_from(value, name)
    system = _optional(raw, fields.system)
    if system and messages[0] != Message("system", system):
        messages.insert(0, Message("system", system))
    return messages


def _template_arguments(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = decoded(value, "chat_template_kwargs") if value.strip() else {}
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"`chat_template_kwargs` must be an object, found {json_type(value)}")
    return value


_READERS: dict[str, Callable[[Mapping[str, Any], Fields], list[Message]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
}
