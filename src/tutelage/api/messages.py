"""Prompts as a caller writes them -> conversations of `Message`. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.errors import DataError
from tutelage.formats.prompt import messages_from
from tutelage.types import Message

Prompts = str | list[str] | Sequence[Message | Mapping[str, Any]]


def conversations_of(prompt: Prompts, *, system: str | None) -> tuple[list[list[Message]], bool]:
    """The conversations to answer, and whether they were given as a list of several texts.

    Args:
        prompt: a text, messages, or a list of texts.
        system: goes before a text; messages stand as they are.

    Raises:
        DataError: it is none of these.
    """
    start = [Message("system", system)] if system else []
    if isinstance(prompt, str):
        return [[*start, Message("user", prompt)]], False
    items: list[Any] = list(prompt)
    if items and all(isinstance(item, str) for item in items):
        return [[*start, Message("user", item)] for item in items], True
    if items and all(isinstance(item, Message | Mapping) for item in items):
        return [messages_from(items)], False
    raise DataError(
        "This is no prompt",
        where="<prompt>",
        found=f"a {type(prompt).__name__} of {', '.join(sorted({type(item).__name__ for item in items})) or 'nothing'}",
        expected="a text, a list of texts, or messages: dicts with role and content",
        fix="hand in one of these",
    )
