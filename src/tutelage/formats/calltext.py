"""Calls, results and lists of tools that rows spell out in their texts, for models that have no words of their own.

A template writes its tools, calls and results itself; text that holds them besides would say all of it twice.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.toolcalls import is_call_list, spoken_calls
from tutelage.formats.toolspecs import lists_tools
from tutelage.types import Address, Change, Message

_CALL_OPENING: Final = "<tool_call>"
_RESULT_OPENING: Final = "<tool_response>"
_RESULT_CLOSING: Final = "</tool_response>"
_SHOWN_CHARACTERS: Final = 80


def calls_out_of_text(
    messages: list[Message], context: RowContext, address: Address, *, offers_tools: bool
) -> tuple[list[Message], tuple[Change, ...]]:
    """The messages with the calls and results that their texts spell made calls and results.

    Calls and lists of tools are taken out of the text only where the row offers tools besides; else they are words.

    Raises:
        RowError: `bad_tool_arguments`, `calls_in_text`, `tools_in_text`.
    """
    changes: tuple[Change, ...] = ()
    if not any(_spells(message, offers_tools) for message in messages):
        return messages, changes
    read: list[Message] = []
    for index, message in enumerate(messages):
        where = f"turn {index}"
        if not _spells(message, offers_tools):
            read.append(message)
        elif message.role == "tool":
            read += _results(message, where, context)
        elif message.role == "assistant":
            words, calls = spoken_calls(message.content or "", where, context)
            context.remarks.say("calls written as `<tool_call>` in the text are read as calls")
            read.append(replace(message, content=words or None, tool_calls=message.tool_calls + calls))
        elif lists_tools(message.content or ""):
            changes += (_left_to_template(message, where, address),)
        else:
            read.append(message)
    return read, changes


def _spells(message: Message, offers_tools: bool) -> bool:
    text = message.content
    if text is None or "<tool" not in text:
        return False
    if message.role == "tool":
        return text.lstrip().startswith(_RESULT_OPENING)
    if not offers_tools:
        return False
    return _CALL_OPENING in text if message.role == "assistant" else message.role == "system" and "<tools>" in text


def _results(message: Message, where: str, context: RowContext) -> list[Message]:
    """A tool turn for each `<tool_response>` of one.

    Raises:
        RowError: `calls_in_text` where other words stand beside them.
    """
    text = message.content or ""
    *pieces, rest = (piece.strip() for piece in text.split(_RESULT_CLOSING))
    if rest or any(not piece.startswith(_RESULT_OPENING) for piece in pieces):
        raise RowError("calls_in_text", f"{where}: words stand beside a `<tool_response>`: {text[:40]!r}")
    context.remarks.say("results written as `<tool_response>` in the text are read as results")
    return [replace(message, content=piece.removeprefix(_RESULT_OPENING).strip()) for piece in pieces]


def _left_to_template(message: Message, where: str, address: Address) -> Change:
    text = message.content or ""
    if _CALL_OPENING not in text:
        raise RowError(
            "tools_in_text",
            f"{where}: the system text lists the tools between `<tools>` and `</tools>`, and so does their column: a "
            "template would show them twice; take them out of the text, or take the column out",
        )
    detail = f"{where}: tools and the way to call them, left to the template: {text[:_SHOWN_CHARACTERS]!r}"
    return Change(address, "system_text_removed", detail)


def is_call_text(reply: Any) -> bool:
    """Whether a reply is a list of calls, as objects or as JSON text, and nothing else.

    Raises:
        RowError: `empty_reply` for the empty list.
    """
    if isinstance(reply, str):
        text = reply.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return False
        if not text[1:-1].strip():
            raise RowError("empty_reply", "the list of calls is empty")
        if '"name"' not in text or '"arguments"' not in text:
            return False
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            return False
    return is_call_list(reply)
