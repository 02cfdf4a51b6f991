"""Calls, results and lists of tools that rows spell out in their texts, for models that have no words of their own.

A template writes its tools, calls and results itself; text that holds them besides would say all of it twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from tutelage.formats.names import TOOL_SENTENCES
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.toolcalls import is_call_list, spoken_calls
from tutelage.formats.toolspecs import lists_tools
from tutelage.types import Address, Change, Message

_CALL_OPENING: Final = "<tool_call>"
_RESULT_OPENING: Final = "<tool_response>"
_RESULT_CLOSING: Final = "</tool_response>"
_CLOSINGS: Final = ("</tools>", "</tool_call>", _CALL_OPENING)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[ \t\r\n]+|\n+")
_SAYS_WHO: Final = re.compile(r"(you are|you're|your name is|act as|i am)\b(?! (provided|given|equipped|able)\b)")
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
    for message in messages:
        if message.content is not None and "<tool" in message.content:
            break
    else:
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
            context.remarks.note("calls written as `<tool_call>` in the text are read as calls")
            read.append(replace(message, content=words or None, tool_calls=message.tool_calls + calls))
        elif lists_tools(message.content or ""):
            left, change = _left_to_template(message, where, address)
            changes += (change,)
            read += [replace(message, content=left)] if left else []
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
    context.remarks.note("results written as `<tool_response>` in the text are read as results")
    return [replace(message, content=piece.removeprefix(_RESULT_OPENING).strip()) for piece in pieces]


def _left_to_template(message: Message, where: str, address: Address) -> tuple[str, Change]:
    """What a system text says besides its tools and the way to call them, and the change that takes these out.

    Raises:
        RowError: `tools_in_text` where the two cannot be told apart.
    """
    text = message.content or ""
    if _CALL_OPENING not in text:
        raise RowError(
            "tools_in_text",
            f"{where}: the system text lists the tools between `<tools>` and `</tools>`, and so does their column: a "
            "template would show them twice; take them out of the text, or take the column out",
        )
    front, tail = _words_around(text, where)
    kept = "\n\n".join(words for words in (front.rstrip(), tail.lstrip()) if words and not words.isspace())
    gone = text[len(front) :] if text.startswith(front) else text
    detail = f"{where}: tools and the way to call them, left to the template: {gone.lstrip()[:_SHOWN_CHARACTERS]!r}"
    return kept, Change(address, "system_text_removed", detail)


def _words_around(text: str, where: str) -> tuple[str, str]:
    """What stands before and behind the part of a system text that is about tools.

    That part goes from the sentence that first names a mark of tools to the end of the last mark's sentence; sentences
    before it that only introduce the tools go, too.
    """
    marks = [text.find(mark) for mark in ("<tools", _CALL_OPENING) if mark in text]
    start, end = min(marks), max(text.rfind(mark) + len(mark) for mark in _CLOSINGS if mark in text)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, start)]
    sentences = [text[first:last] for first, last in zip([0, *ends], [*ends, start], strict=True)]
    opening = sentences.pop().lower()
    if _SAYS_WHO.match(opening) and not opening.startswith(TOOL_SENTENCES):
        raise RowError(
            "tools_in_text",
            f"{where}: one sentence says who the assistant is and names `<tools>`, which the template lists from their "
            f"column: {opening[:40]!r}; write two, or take the column out",
        )
    front = "".join(words for words in sentences if not words.strip().lower().startswith(TOOL_SENTENCES))
    rest = text[end:]
    if rest[:1] not in {"", "\n"}:  # the sentence goes on, as in "within <tool_call></tool_call> tags."
        goes_on = _SENTENCE_END.search(rest)
        rest = rest[goes_on.end() :] if goes_on else ""
    return front, rest


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
