"""How large a row is: what bounds the time and memory that one row may take, whatever the template does with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.formats.nested import DEPTH_MAX
from tutelage.render.chat_template.limits import Limits
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import Unproven
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Conversation, Drop

FEW_TURNS = 16
"""Up to so many trained turns every prompt may be rendered before the length of the row is known."""

LIKELY_CHARACTERS = 8
"""Characters of a token. Our choice: twice the usual; longer rows are looked at before their turns are."""

SURE_TOKENS = 64
"""So many tokens beyond the limit, the beginning of a text cannot become shorter by what follows it."""

MAX_TURN_CHARACTERS = 1 << 28
"""What the prompts of one row may hold together. Our choice: 256 MB; 500 turns of a million characters."""

LARGE_SHARE = 100
"""A row that is larger than this part of the limits of a rendering is the reason why they are met. Our choice: no
template needs a hundred times what it is handed."""

BEYOND_TURNS = 16
"""After so many prompts that are too long, one after the other, no further one is rendered. Our choice: templates that
leave earlier reasoning out have shorter prompts again after the next question."""

LARGE_ITEMS, LARGE_NESTING = 1_000, 16


@dataclass(frozen=True, slots=True)
class Size:
    """What a row holds: characters of text, messages and values in them, and levels of values inside each other."""

    characters: int
    items: int
    nesting: int


def size_of(conversation: Conversation) -> Size:
    """The size of a row; nothing is called inside itself, however deep the row is nested."""
    characters = nesting = 0
    items = len(conversation.messages)
    stack: list[tuple[Any, int]] = [(tool, 1) for tool in conversation.tools]
    if conversation.template_arguments:
        stack.append((conversation.template_arguments, 1))
    for message in conversation.messages:
        characters += len(message.content or "") + len(message.reasoning or "")
        if message.tool_calls:
            stack += [(call.arguments, 1) for call in message.tool_calls]
    while stack:
        value, depth = stack.pop()
        items += 1
        if isinstance(value, (dict, list, tuple)):
            nesting = max(nesting, depth)
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            characters += sum(map(len, value))
            stack.extend((nested, depth + 1) for nested in value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend((nested, depth + 1) for nested in value)
    return Size(characters, items, nesting)


def too_deep(conversation: Conversation, size: Size | None = None) -> Drop | None:
    """Why a row goes whose values are nested too deeply to be handed on; None if they are not."""
    levels = (size or size_of(conversation)).nesting
    if levels <= DEPTH_MAX:
        return None
    return Drop(
        conversation.address,
        "nested_too_deep",
        f"lists and objects in tools, arguments or template arguments stand {levels} levels inside each other; at most "
        f"{DEPTH_MAX} are read",
    )


def is_large(size: Size, limits: Limits) -> bool:
    """Whether a row is so large that it, and not the template, may be why a rendering meets its limits."""
    return (
        size.characters > limits.characters // LARGE_SHARE or size.items > LARGE_ITEMS or size.nesting > LARGE_NESTING
    )


def longer_than(text: str, most_tokens: int, tokenizer: Tokenizer) -> bool:
    """Whether a text surely has more tokens than `most_tokens`, in time that grows with these and not with the text."""
    characters = LIKELY_CHARACTERS * most_tokens
    while True:
        tokens = len(tokenizer.encode([text[:characters]])[0])
        if tokens > most_tokens + SURE_TOKENS:
            return True
        if characters >= len(text):
            return False
        characters *= 4


def require_prompts_fit(trained: Sequence[int], text: str) -> None:
    """Check that the prompts of a row's trained turns, on the average half of `text` each, are not too much together.

    Raises:
        Unproven: memory should not hold so much for one row.
    """
    characters = len(trained) * len(text) // 2
    if characters > MAX_TURN_CHARACTERS:
        raise Unproven(
            "too_long",
            f"{len(trained)} trained turns with prompts of about {characters:,} characters together; at most "
            f"{MAX_TURN_CHARACTERS:,}",
        )


def turns_within_limit(row: RenderedRow, trained: Sequence[int], most_tokens: int, tokenizer: Tokenizer) -> list[int]:
    """Of a row that is too long the trained turns whose prompts are not.

    Raises:
        Unproven: there is none.
    """
    kept_turns, too_long_in_a_row = [], 0
    for index in trained:
        try:
            prompt = row.render(index, generation_prompt=True)
        except Unproven:  # of an opening turn, say; the proof knows what to make of it
            prompt = ""
        too_long_in_a_row = too_long_in_a_row + 1 if longer_than(prompt, most_tokens, tokenizer) else 0
        if not too_long_in_a_row:
            kept_turns.append(index)
        elif too_long_in_a_row == BEYOND_TURNS:
            break
    if not kept_turns:
        raise Unproven(
            "too_long", f"the first trained turn begins later; the limit pack.max_seq_length is {most_tokens}"
        )
    return kept_turns
