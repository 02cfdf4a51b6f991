"""Words that a template prints as a value of a programming language where it should write them.

A template that puts a list or an object into its text writes `[{'type': 'text', 'text': 'hi'}]` or the like: Python's
notation, or JSON's. The words are in it, and no model should learn to say them so. Only what belongs to a language may
stand in it: the arguments of a call as JSON, or all of a call that is written as Python's own, `name(place='x')`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tutelage.render.chat_template.tracing import JSON, PYTHON, Traced
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven
from tutelage.types import Message

_PART = re.compile(r"""["']type["']:\s*["'](?:text|thinking)["']""")
_TYPE_OF_PART = re.compile(r"content\[\d+\]\.type")
_TEXT_FIELD = re.compile(r"content|reasoning|thinking")


def prints_parts(text: str) -> bool:
    """Whether something in `text` looks like a part of content, printed: `'type': 'text'`."""
    return _PART.search(text) is not None


def require_written(
    index: int, template_message: dict[str, Any], message: Message, traced: Traced, first: int, last: int
) -> None:
    """Check that the words of message `index` between two characters are written, not printed as a value.

    Args:
        index: of the message.
        template_message: the message as the template was handed it.
        message: the message.
        traced: the rendering.
        first: the first character of the reply.
        last: one after its last.

    Raises:
        Unproven: a list or an object is printed there.
    """
    text = traced.text[first:last]
    text_is_quoted = _is_quoted(traced, index, first, last)
    prints_call = not _is_python_call(message, text) and (
        bool(np.any(traced.source[first:last] == PYTHON))
        or any(str(value) in text for value in _objects(template_message.get("tool_calls")))
    )
    prints_untraced = not traced.followed and (
        prints_parts(text) or any(str(value) in text for value in _objects(template_message))
    )
    if not (text_is_quoted or prints_call or prints_untraced):
        return
    detail = (
        f"message {index}: the template prints a list or an object where it should write words: "
        f"{text[:EXCERPT_CHARACTERS]!r}"
    )
    if not text_is_quoted and message.tool_calls:
        raise Unproven("tool_call_not_in_reply", detail)
    if message.reasoning and isinstance(template_message["content"], list):
        raise Unproven("reasoning_not_in_reply", detail)
    raise Unproven("content_not_in_reply", detail)


def require_parts_read(traced: Traced) -> None:
    """Check that no message's content is printed as the list of parts that it was handed over in.

    Raises:
        Unproven: one is.
    """
    types = [number for number, source in enumerate(traced.sources) if _TYPE_OF_PART.fullmatch(source.field)]
    if not types:
        return
    printed = np.flatnonzero(np.isin(traced.source, types))
    if len(printed):
        position = int(printed[0])
        raise Unproven(
            "message_as_data",
            f"message {traced.sources[int(traced.source[position])].message}: the template reads other content as a "
            f"list of parts, and prints this list: "
            f"{traced.text[max(0, position - 20) : position + EXCERPT_CHARACTERS]!r}",
        )


def _is_quoted(traced: Traced, index: int, first: int, last: int) -> bool:
    """Whether what the message says or thinks begins behind a quote or bracket of a language there."""
    text_sources = [
        number
        for number, source in enumerate(traced.sources)
        if source.message == index and _TEXT_FIELD.match(source.field)
    ]
    second = max(first, 1)
    preceding = traced.source[second - 1 : last - 1]
    following = second + np.flatnonzero((preceding == PYTHON) | (preceding == JSON))
    return bool(np.isin(traced.source[following], text_sources).any())


def _is_python_call(message: Message, text: str) -> bool:
    return bool(message.tool_calls) and all(f"{call.name}(" in text for call in message.tool_calls)


def _objects(value: Any) -> Iterator[Any]:
    """Every list and object in a value that Python and JSON print differently."""
    if isinstance(value, (dict, list)) and value:
        if str(value) != json.dumps(value, ensure_ascii=False):
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _objects(inner)
