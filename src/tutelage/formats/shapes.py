"""The five shapes of a row: which of them a row fits, and how each becomes a Conversation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from msgspec.structs import replace

from tutelage.formats.calltext import extract_calls, is_call_text
from tutelage.formats.marks import row_weight_of, train_listed_turns
from tutelage.formats.metadata import metadata_of
from tutelage.formats.names import LIST_HOLDERS, METADATA_COLUMNS, NO_INPUT, SHAPES_BY_PRIORITY, TURN_KEYS, Fields
from tutelage.formats.nested import holds_null
from tutelage.formats.nulls import without_nulls
from tutelage.formats.parts import parts_of
from tutelage.formats.rawrow import RawRow, RowError, json_type
from tutelage.formats.remarks import NO_SCHEMAS, FileRemarks, RowContext
from tutelage.formats.toolcalls import calls_from
from tutelage.formats.toolspecs import tools_from
from tutelage.formats.turns import first_value, json_cell, role_of, turns_from
from tutelage.types import Address, Change, Conversation, Message

Reader = Callable[[Mapping[str, Any], Fields, RowContext], list[Message]]
_NO_INPUT_MAX: Final = max(map(len, NO_INPUT))


class ShapeTable:
    """Which shapes a row fits: those of which it holds a value for every required field."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._required = {shape: fields.required(shape) for shape in SHAPES_BY_PRIORITY}
        self._columns = {shape: tuple(chain.from_iterable(groups)) for shape, groups in self._required.items()}

    def fits(self, row: Mapping[str, Any], shape: str) -> bool:
        """Whether the row holds all that the shape needs."""
        return all(any(row.get(name) is not None for name in names) for names in self._required[shape])

    def holds_any(self, row: Mapping[str, Any], shape: str) -> bool:
        """Whether the row holds something that the shape needs."""
        for name in self._columns[shape]:  # noqa: SIM110 - asked of every row: `any` takes three times as long
            if row.get(name) is not None:
                return True
        return False

    def needs(self, row: Mapping[str, Any]) -> int:
        """How many columns the most telling shape that the row fits asks for; 0 where it fits none."""
        best = self.best(row)
        return 0 if best is None else len(self._required[best])

    def best(self, row: Mapping[str, Any]) -> str | None:
        """The most telling shape the row fits. A row with a role is a turn on its own: never taken for a document."""
        for shape in SHAPES_BY_PRIORITY:
            if self.fits(row, shape):
                return None if shape == "text" and first_value(row, TURN_KEYS["role"]) is not None else shape
        return None

    def choose(self, row: Mapping[str, Any], file_shape: str) -> str:
        """The shape to read a row by: its file's, unless it holds nothing of that and fits another."""
        if self.holds_any(row, file_shape):
            return file_shape
        return self.best(row) or file_shape


def conversation_from(
    row: RawRow, shape: str, fields: Fields, context: RowContext
) -> tuple[Conversation, tuple[Change, ...]]:
    """The conversation a row means, and what was changed on the way.

    Args:
        row: the row.
        shape: the shape to read it by.
        fields: the names of columns.
        context: the file's; what it says of the row before is replaced.

    Raises:
        RowError: the row cannot become one.
    """
    raw = row.fields
    if shape != "text" and fields.beside.isdisjoint(raw):
        return _plain_conversation(row, _READERS[shape], fields, context)
    has_side_columns = not fields.side_columns.isdisjoint(raw)
    context.begin(filled=row.filled, text=row.text, has_side_columns=has_side_columns)
    has_rare_columns = has_side_columns and not fields.rare_columns.isdisjoint(raw)
    if has_rare_columns:
        _refuse_media(raw, fields)
    metadata = {} if METADATA_COLUMNS.isdisjoint(raw) else metadata_of(raw)
    if shape == "text":
        return Conversation((_text_message(raw, fields),), row.address, metadata=metadata), ()
    tools: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Change, ...] = ()
    weight: float | None = None
    if has_rare_columns:
        _refuse_rejected_reply(raw, fields, context.remarks)
        weight = (
            row_weight_of(raw, fields.marks, context.remarks) if not fields.weight_columns.isdisjoint(raw) else None
        )
    if has_side_columns:
        tools = tools_from(first_value(raw, fields.tools), context)
    messages = _READERS[shape](raw, fields, context)
    if not LIST_HOLDERS.isdisjoint(raw):
        messages = train_listed_turns(messages, raw)
    if weight is not None:
        messages = [_scaled(message, weight) for message in messages]
    if tools or context.wrapped_results:
        messages, removed = extract_calls(messages, context, row.address, offers_tools=bool(tools))
    if not has_rare_columns:
        messages, changes = _up_to_last_reply(messages, row.address)
        return Conversation(tuple(messages), row.address, tools=tools, metadata=metadata), removed + changes
    if shape in {"messages", "sharegpt"}:
        _mask_role(messages, first_value(raw, fields.masked_role))
    messages, changes = _up_to_last_reply(messages, row.address)
    arguments = _template_arguments(first_value(raw, fields.template_arguments), context)
    conversation = Conversation(tuple(messages), row.address, tools, arguments, metadata)
    return conversation, removed + changes


def _plain_conversation(
    row: RawRow, reader: Reader, fields: Fields, context: RowContext
) -> tuple[Conversation, tuple[Change, ...]]:
    """The same of a row that has nothing beside its conversation, as most have."""
    context.begin(filled=row.filled, text=row.text, has_side_columns=False)
    messages = reader(row.fields, fields, context)
    removed: tuple[Change, ...] = ()
    if context.wrapped_results:
        messages, removed = extract_calls(messages, context, row.address, offers_tools=False)
    messages, changes = _up_to_last_reply(messages, row.address)
    return Conversation(tuple(messages), row.address), removed + changes


def _refuse_media(raw: Mapping[str, Any], fields: Fields) -> None:
    for name in fields.media:
        if raw.get(name):
            raise RowError("unsupported_content", f"`{name}` holds something; only text is trained")


def _up_to_last_reply(messages: list[Message], address: Address) -> tuple[list[Message], tuple[Change, ...]]:
    """The messages up to the last assistant turn, each of whose turns says something."""
    changes: tuple[Change, ...] = ()
    last_reply = -1
    for index, message in enumerate(messages):
        if message.role == "assistant":
            last_reply = index
            content = message.content
            if (not content or content.isspace()) and not (message.tool_calls or _has_text(message.reasoning)):
                raise RowError(
                    "empty_reply", f"turn {index}: the assistant says nothing, thinks nothing, calls nothing"
                )
    if last_reply < 0:
        roles = ", ".join(dict.fromkeys(message.role for message in messages))
        raise RowError("no_reply", f"no assistant turn; the roles are {roles}")
    if last_reply + 1 < len(messages):
        roles = ", ".join(message.role for message in messages[last_reply + 1 :])
        changes = (Change(address, "trailing_turns_removed", f"after the last assistant turn: {roles}"),)
        del messages[last_reply + 1 :]
    return messages, changes


def _refuse_rejected_reply(raw: Mapping[str, Any], fields: Fields, remarks: FileRemarks) -> None:
    """Refuse a reply that the row itself calls a bad one, as rows for KTO do: this training learns what it is shown."""
    for name in fields.verdict:
        value = raw.get(name)
        if value is None:
            continue
        word = value.strip().lower() if isinstance(value, str) else value
        if word is False or word == "false":
            raise RowError("unwanted_reply", f"`{name}` is false: the row shows a reply that is not wanted")
        if word is not True and word != "true":
            remarks.unread("row", [name])


def _scaled(message: Message, factor: float) -> Message:
    """The message with the weight that its row gives it: what is trained anyway is weighed, and nothing else."""
    if factor == 1 or (message.role != "assistant" and message.weight is None):
        return message
    return replace(message, weight=(1.0 if message.weight is None else message.weight) * factor)


def _mask_role(messages: list[Message], role_name: Any) -> None:
    """Take the turns of the role that a column `mask` names out of what is trained."""
    if role_name is None or role_name == "":
        return
    if not isinstance(role_name, str) or not role_name.strip():
        raise RowError("unclear_mark", "the column `mask` names no role; write `train` with true or false on each turn")
    role = role_of(role_name, "`mask`")
    for index, message in enumerate(messages):
        if message.role == role:
            messages[index] = replace(message, weight=0.0)


def _has_text(text: str | None) -> bool:
    return text is not None and text != "" and not text.isspace()


def _column_value(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of the names that holds a value, and the value; the first name and None where none does."""
    for name in names:
        value = raw.get(name)
        if value is not None:
            return name, value
    return names[0], None


def _required_text(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, str]:
    for name in names:
        value = raw.get(name)
        if type(value) is str:
            return name, value
        if value is not None:
            break
    name, value = _column_value(raw, names)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _missing_field(raw, names)
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{name}` must be a string, found {json_type(value)}")
    return name, value


def _missing_field(raw: Mapping[str, Any], names: tuple[str, ...]) -> RowError:
    columns = ", ".join(sorted(map(str, raw))[:12])
    return RowError("missing_field", f"no `{'` or `'.join(names)}`; the row has {columns or 'no columns'}")


def _optional_text(raw: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = raw.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise RowError("wrong_type", f"`{name}` must be a string, found {json_type(value)}")
        return "" if value.isspace() else value
    return ""


def _text_message(raw: Mapping[str, Any], fields: Fields) -> Message:
    name, text = _required_text(raw, fields.text)
    if not _has_text(text):
        raise RowError("missing_field", f"`{name}` is empty")
    return Message("text", text)


def _system(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> str:
    """The text of the system column, or of the list of its text parts."""
    name, value = _column_value(raw, fields.system)
    if value is None or value == "":
        return ""
    if not isinstance(value, list):
        return _optional_text(raw, fields.system)
    parts = parts_of(value, f"`{name}`", context)
    if parts.thoughts or parts.calls or parts.results:
        raise RowError("unsupported_content", f"`{name}` holds more than text")
    return parts.text if parts.text and _has_text(parts.text) else ""


def _context_turns(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    """The system turn and the earlier turns that stand in columns of their own."""
    messages: list[Message] = []
    if system := _system(raw, fields, context):
        messages.append(Message("system", system))
    name, history = _column_value(raw, fields.history)
    if isinstance(history, str):
        history = json_cell(history, name) if history.strip() else None
    if history is None:
        return messages
    if not isinstance(history, list):
        raise RowError("wrong_type", f"`{name}` must be a list of [question, answer], found {json_type(history)}")
    if history and isinstance(history[0], dict):
        return messages + turns_from(history, name, context)
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError("wrong_type", f"{name}[{index}] must be [question, answer], both strings")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


def _alpaca(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    name, instruction = _required_text(raw, fields.instruction)
    added_text = _optional_text(raw, fields.input)
    if added_text and (word := added_text.strip().rstrip("."))[_NO_INPUT_MAX:] == "" and word.lower() in NO_INPUT:
        context.remarks.note("an input that says that there is none, such as N/A, is left out")
        added_text = ""
    prompt = "" if instruction.isspace() else instruction
    if added_text:
        prompt = f"{prompt}\n\n{added_text}" if prompt else added_text
    if not prompt:
        raise RowError("missing_field", f"`{name}` and `{fields.input[0]}` are both empty")
    before = _context_turns(raw, fields, context) if context.has_side_columns else []
    return [*before, Message("user", prompt), *_reply(raw, fields, context)]


def _prompt_completion(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    messages = _context_turns(raw, fields, context) if context.has_side_columns else []
    name, prompt = _column_value(raw, fields.prompt)
    if isinstance(prompt, list):
        # A prompt is context: what the assistant says in it is not what the row asks to learn.
        messages += [_untrained(message) for message in turns_from(prompt, name, context)]
    else:
        name, text = _required_text(raw, fields.prompt)
        if not _has_text(text):
            raise RowError("missing_field", f"`{name}` is empty")
        messages.append(Message("user", text))
    return messages + _reply(raw, fields, context)


def _reply(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    """The reply: text, turns, or, in a row that offers tools, the list of its calls."""
    if context.schemas is NO_SCHEMAS:
        for name in fields.response:
            reply = raw.get(name)
            if type(reply) is str:
                return [Message("assistant", reply)]
            if reply is not None:
                break
    name, reply = _column_value(raw, fields.response)
    if context.schemas and is_call_text(reply):
        calls = calls_from(reply, f"`{name}`", context)
        context.remarks.note(f"`{name}` holds calls of the tools as JSON; they are read as calls")
        return [Message("assistant", None, tool_calls=calls)]
    if isinstance(reply, dict):
        reply = [reply]
    if isinstance(reply, list):
        return turns_from(reply, name, context)
    return [Message("assistant", _required_text(raw, fields.response)[1])]


def _untrained(message: Message) -> Message:
    if message.role != "assistant" or message.weight is not None:
        return message
    return replace(message, weight=0.0)


def _messages(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    return _turns(raw, fields, context, fields.messages)


def _sharegpt(raw: Mapping[str, Any], fields: Fields, context: RowContext) -> list[Message]:
    return _turns(raw, fields, context, fields.conversations)


def _turns(raw: Mapping[str, Any], fields: Fields, context: RowContext, names: tuple[str, ...]) -> list[Message]:
    name, value = _column_value(raw, names)
    if value is None:
        raise _missing_field(raw, names)
    messages = turns_from(value, name, context)
    if not context.has_side_columns:
        return messages
    system = _system(raw, fields, context)
    if system and messages[0] != Message("system", system):
        messages.insert(0, Message("system", system))
    return messages


def _template_arguments(value: Any, context: RowContext) -> Mapping[str, Any]:
    if value is None:
        return {}
    name = "`chat_template_kwargs`"
    if isinstance(value, str):
        value = json_cell(value, "chat_template_kwargs") if value.strip() else {}
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"{name} must be an object, found {json_type(value)}")
    if not holds_null(value, name, not_json="wrong_type"):
        return value
    # A template asks whether an argument is defined: a null that Arrow filled in would answer for the user.
    without_filled: Mapping[str, Any] = without_nulls(value)
    if without_filled != value:
        context.remarks.nulls(name)
    return without_filled


_READERS: Final[dict[str, Reader]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
}
