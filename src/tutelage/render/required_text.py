"""The required text of a turn: what a reply must contain, whatever the template puts around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tutelage.render.chat_template.reasoning import contains_pieces, without_empty_block
from tutelage.types import Message

EXCERPT_CHARACTERS = 160


class Unproven(ValueError):  # noqa: N818 a finding about a row, turned into a Drop where it is caught
    """A row cannot be proven: `reason` is the ledger's key, the message says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


def require_text(index: int, message: Message, text: str) -> None:
    """Check that `text` contains all content of message `index`.

    Raises:
        Unproven: some are not there.
    """
    reasoning, content = (message.reasoning or "").strip(), (message.content or "").strip()
    if (
        reasoning
        and content
        and (start := text.rfind(content)) >= 0
        and reasoning not in text[:start] + "\0" + text[start + len(content) :]
    ):
        raise Unproven(
            "reasoning_not_in_reply",
            f"message {index}: the template's reply {text[:EXCERPT_CHARACTERS]!r} "
            f"lacks {reasoning[:EXCERPT_CHARACTERS]!r}",
        )
    for reason, spellings in required_texts(message):
        # Templates that take reasoning out of the content write its tags with white space of their own.
        if not any(spelling in text or contains_pieces(text, spelling) for spelling in spellings):
            raise Unproven(
                reason,
                f"message {index}: the template's reply {text[:EXCERPT_CHARACTERS]!r} "
                f"lacks {spellings[0][:EXCERPT_CHARACTERS]!r}",
            )


def prompt_mismatch(index: int, prompt: str, finished: str) -> Unproven:
    """The finding that a finished turn does not begin with its served prompt, with both texts where they part."""
    common_length = next(
        (position for position, (a, b) in enumerate(zip(prompt, finished, strict=False)) if a != b), len(prompt)
    )
    start = max(0, common_length - 40)
    excerpt = slice(start, start + EXCERPT_CHARACTERS)
    return Unproven(
        "prompt_not_a_prefix",
        f"message {index}: the finished turn does not begin with its served prompt; the prompt has "
        f"{prompt[excerpt]!r}, the finished turn {finished[excerpt]!r}",
    )


def required_text_end(message: Message, text: str) -> int:
    """Where a turn's required text ends in `text`, where its origin could not be traced."""
    return max(
        (
            text.rfind(spelling) + len(spelling)
            for _, spellings in required_texts(message)
            for spelling in spellings
            if spelling in text
        ),
        default=0,
    )


def required_texts(message: Message) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a reply must contain, with the reason to give if it does not and the spellings that count.

    Templates may trim content, so its outer white space is not compared; arguments may be written as JSON. An empty
    block of reasoning in the content holds no words.
    """
    if content := without_empty_block((message.content or "").strip()):
        yield "content_not_in_reply", (content,)
    if reasoning := (message.reasoning or "").strip():
        yield "reasoning_not_in_reply", (reasoning,)
    for call in message.tool_calls:
        for word in (call.name, *strings_in(dict(call.arguments))):
            yield "tool_call_not_in_reply", (word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1])


def strings_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, the names of its fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)
