"""Calls, results and lists of tools that rows spell out in their texts, for models that have no words of their own.

A template writes its tools, calls and results itself; text that holds them besides would say all of it twice.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from msgspec.structs import replace

from tutelage.formats.names import TOOL_SENTENCES
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.toolcalls import is_call_list, parse_tagged_calls
from tutelage.formats.toolspecs import has_tool_listing
from tutelage.types import Address, Change, Message

_CALL_OPENING: Final = "<tool_call>"
_RESULT_OPENING: Final = "<tool_response>"
_RESULT_CLOSING: Final = "</tool_response>"
_CLOSINGS: Final = ("</tools>", "</tool_call>", _CALL_OPENING)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[ \t\r\n]+|\n+")
_PERSONA: Final = re.compile(r"(you are|you're|your name is|act as|i am)\b(?! (provided|given|equipped|able)\b)")
_EXCERPT_CHARACTERS: Final = 80


def extract_calls(
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
    parsed_messages: list[Message] = []
    for index, message in enumerate(messages):
        where = f"turn {index}"
        if not _has_tool_tags(message, offers_tools):
            parsed_messages.append(message)
        elif message.role == "tool":
            parsed_messages += _tool_results(message, where, context)
        elif message.role == "assistant":
            reply_text, calls = parse_tagged_calls(message.content or "", where, context)
            context.remarks.note("calls written as `<tool_call>` in the text are read as calls")
            parsed_messages.append(replace(message, content=reply_text or None, tool_calls=message.tool_calls + calls))
        elif has_tool_listing(message.content or ""):
            remaining_text, change = _strip_tool_listing(message, where, address)
            changes += (change,)
            parsed_messages += [replace(message, content=remaining_text)] if remaining_text else []
        else:
            parsed_messages.append(message)
    return parsed_messages, changes


def _has_tool_tags(message: Message, offers_tools: bool) -> bool:
    text = message.content
    if text is None or "<tool" not in text:
        return False
    if message.role == "tool":
        return text.lstrip().startswith(_RESULT_OPENING)
    if not offers_tools:
        return False
    return _CALL_OPENING in text if message.role == "assistant" else message.role == "system" and "<tools>" in text


def _tool_results(message: Message, where: str, context: RowContext) -> list[Message]:
    """A tool turn for each `<tool_response>` of one.

    Raises:
        RowError: `calls_in_text` where other words stand beside them.
    """
    text = message.content or ""
    *pieces, suffix_text = (piece.strip() for piece in text.split(_RESULT_CLOSING))
    if suffix_text or any(not piece.startswith(_RESULT_OPENING) for piece in pieces):
        raise RowError("calls_in_text", f"{where}: words stand beside a `<tool_response>`: {text[:40]!r}")
    context.remarks.note("results written as `<tool_response>` in the text are read as results")
    return [replace(message, content=piece.removeprefix(_RESULT_OPENING).strip()) for piece in pieces]


def _strip_tool_listing(message: Message, where: str, address: Address) -> tuple[str, Change]:
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
    prefix_text, suffix_text = _text_around_tools(text, where)
    remaining_text = "\n\n".join(
        passage for passage in (prefix_text.rstrip(), suffix_text.lstrip()) if passage and not passage.isspace()
    )
    removed_text = text[len(prefix_text) :] if text.startswith(prefix_text) else text
    detail = f"{where}: tools and the way to call them, left to the template: "
    detail += repr(removed_text.lstrip()[:_EXCERPT_CHARACTERS])
    return remaining_text, Change(address, "system_text_removed", detail)


def _text_around_tools(text: str, where: str) -> tuple[str, str]:
    """What stands before and behind the part of a system text that is about tools.

    That part goes from the sentence that first names a mark of tools to the end of the last mark's sentence; sentences
    before it that only introduce the tools go, too.
    """
    tag_starts = [text.find(tag) for tag in ("<tools", _CALL_OPENING) if tag in text]
    start, end = min(tag_starts), max(text.rfind(tag) + len(tag) for tag in _CLOSINGS if tag in text)
    sentence_ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, start)]
    sentences = [text[first:last] for first, last in zip([0, *sentence_ends], [*sentence_ends, start], strict=True)]
    last_sentence = sentences.pop().lower()
    if _PERSONA.match(last_sentence) and not last_sentence.startswith(TOOL_SENTENCES):
        raise RowError(
            "tools_in_text",
            f"{where}: one sentence says who the assistant is and names `<tools>`, which the template lists from their "
            f"column: {last_sentence[:40]!r}; write two, or take the column out",
        )
    prefix_text = "".join(sentence for sentence in sentences if not sentence.strip().lower().startswith(TOOL_SENTENCES))
    suffix_text = text[end:]
    if suffix_text[:1] not in {"", "\n"}:  # the sentence goes on, as in "within <tool_call></tool_call> tags."
        sentence_end = _SENTENCE_END.search(suffix_text)
        suffix_text = suffix_text[sentence_end.end() :] if sentence_end else ""
    return prefix_text, suffix_text


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
