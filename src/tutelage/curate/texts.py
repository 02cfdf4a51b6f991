"""The texts of a row that steps compare, and the words they are made of: the same for all steps."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from tutelage.types import Conversation, Message, Role
from tutelage.words import UNSPACED

SEPARATOR = "\n\n"
"""Between the texts of two turns."""
_ASCII_WORD, _WORD = re.compile(r"\w+", re.ASCII), re.compile(r"\w+")
_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED)
"""Each character of these is a word, as nothing shows where their words end."""
_LAST_MARK = 0x1FFFF
"""Marks beyond it are variation selectors, which belong to no word."""


def prompt_text(conversation: Conversation) -> str:
    """What the users say; nothing of a document."""
    return _joined(conversation, "user")


def reply_text(conversation: Conversation) -> str:
    """What is learned: what the assistant thinks, says and calls; of a document, its text."""
    return _joined(conversation, "assistant", "text")


def system_text(conversation: Conversation) -> str:
    """What the system turns say."""
    return _joined(conversation, "system")


def all_text(conversation: Conversation) -> str:
    """Every turn in order, tool results too."""
    return _joined(conversation, "system", "user", "assistant", "tool", "text")


def message_text(message: Message) -> str:
    """All that a turn says: reasoning, text, and calls as their name with JSON arguments."""
    if not message.tool_calls and message.reasoning is None:
        return message.content or ""
    calls = (
        f"{call.name} {json.dumps(call.arguments, ensure_ascii=False, sort_keys=True)}" for call in message.tool_calls
    )
    return SEPARATOR.join(text for text in (message.reasoning, message.content, *calls) if text)


def words(text: str) -> list[str]:
    """The words of a text, case-folded and in Unicode form NFC; of scripts without spaces, each character.

    A word is a run of letters, digits, marks and underscores; all else only separates.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    special, pattern = _special_characters()
    distinct = "".join(set(folded))  # few: the search is slow for a class of so many ranges
    return (pattern if special.search(distinct) else _WORD).findall(folded)


def _joined(conversation: Conversation, *roles: Role) -> str:
    texts: Iterable[str] = [message_text(message) for message in conversation.messages if message.role in roles]
    return SEPARATOR.join(texts)


@cache
def _special_characters() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds a character that Python's own class of word characters would treat wrongly, and words beside such.

    That class has no marks, so it would cut words of Hindi or Arabic at their vowels.
    """
    codes = [code for code in range(_LAST_MARK) if unicodedata.category(chr(code)).startswith("M")]
    starts = [code for code in codes if not unicodedata.category(chr(code - 1)).startswith("M")]
    ends = [code for code in codes if not unicodedata.category(chr(code + 1)).startswith("M")]
    marks = "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
    return re.compile(f"[{_UNSPACED}{marks}]"), re.compile(f"[{_UNSPACED}]|(?:[^\\W{_UNSPACED}]|[{marks}])+")
