"""Where the content of a turn lies in a rendering, by the origin of each character; and what stands around them.

The template's own text around a turn is compared with what the served prompt ends with, so that a reply can be found
even where the template writes a finished conversation otherwise than the prompt it is served with.

Shape legend: C = characters of a rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.render.chat_template import tracing
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven

OWN, OTHERS, TEMPLATE = 1, 2, 0


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Where one message's content lies in a rendering.

    Attributes:
        start: the first of its characters.
        end: one after the last of them.
        prefix_text: what the template wrote just before `start`, after the words of any other message.
        neighbor: the origin (message, field, offset) of the last character before `prefix_text`; None if there is none.
    """

    start: int
    end: int
    prefix_text: str
    neighbor: tuple[int, str, int] | None


def character_owners(traced: Traced, message: int) -> NDArray[np.int8]:
    """int8 [C]: 1 for content of `message`, 2 for content of other messages, 0 for the template's own text.

    Roles are the template's business: it writes them from a message or by itself as it likes.
    """
    kinds = [
        TEMPLATE if source.message is None or source.field == "role" else OWN if source.message == message else OTHERS
        for source in traced.sources
    ]
    # Sources below 0, the template's text, count from the end of the table.
    table = np.asarray([*kinds, *(TEMPLATE for _ in (tracing.JSON, tracing.PYTHON, tracing.TEMPLATE_TEXT))], np.int8)
    return table[traced.source]


def span_of(traced: Traced, message: int, *, start: int = 0) -> TextSpan | None:
    """The span of a message's content from character `start` on; None when the template writes none there."""
    owners = character_owners(traced, message)
    own_positions = np.flatnonzero(owners[start:] == OWN)
    if not len(own_positions):
        return None
    first, last = start + int(own_positions[0]), start + int(own_positions[-1]) + 1
    return TextSpan(first, last, *_template_text_before(traced, owners, first))


def end_of_prompt(traced: Traced) -> tuple[str, tuple[int, str, int] | None]:
    """What the template writes at the end of a prompt, after all words of messages; and the origin before it."""
    return _template_text_before(traced, character_owners(traced, -1), len(traced.text))


def foreign_text(traced: Traced, message: int, first: int, last: int) -> str | None:
    """Content of another message between two characters; None when there are none."""
    owners = character_owners(traced, message)[first:last]
    positions = np.flatnonzero(owners == OTHERS)
    return traced.text[first + int(positions[0]) : first + int(positions[-1]) + 1] if len(positions) else None


def in_order(traced: Traced, message: int, first: int, last: int) -> bool:
    """Whether the content and reasoning of a message stand in their own order, each at most once.

    Names and arguments of calls may stand in several places.
    """
    source, offset = traced.source[first:last], traced.offset[first:last]
    for number, origin in enumerate(traced.sources):
        if origin.message == message and not origin.field.startswith(("role", "name", "tool_call")):
            offsets = offset[(source == number) & (offset >= 0)]
            # A character that was escaped stands in several places with one offset.
            if np.any(np.diff(offsets) < 0):
                return False
    return True


def require_own_text(traced: Traced, index: int, first: int, last: int) -> None:
    """Check that a reply holds no content of another message, and its own in its order.

    Raises:
        Unproven: it does not.
    """
    if (text := foreign_text(traced, index, first, last)) is not None:
        raise Unproven(
            "foreign_text_in_reply",
            f"message {index}: the template puts another message's words in the reply: {text[:EXCERPT_CHARACTERS]!r}",
        )
    if not in_order(traced, index, first, last):
        raise Unproven(
            "foreign_text_in_reply",
            f"message {index}: the template writes the turn's words more than once or in another order: "
            f"{traced.text[first:last][:EXCERPT_CHARACTERS]!r}",
        )


def has_content(traced: Traced, message: int, first: int, last: int) -> bool:
    """Whether a character of the message's content stands between two positions, as far as it could be traced."""
    return not traced.followed or end_of_content(traced, message, first, last) > first


def end_of_content(traced: Traced, message: int, first: int, last: int) -> int:
    """One after the last character of the message's content between two positions; `first` where there is none."""
    is_content = [source.message == message and source.field.startswith("content") for source in traced.sources]
    positions = np.flatnonzero(np.isin(traced.source[first:last], np.flatnonzero(is_content)))
    return first + int(positions[-1]) + 1 if len(positions) else first


def _template_text_before(
    traced: Traced, owners: NDArray[np.int8], end: int
) -> tuple[str, tuple[int, str, int] | None]:
    foreign_positions = np.flatnonzero(owners[:end] == OTHERS)
    if not len(foreign_positions):
        return traced.text[:end], None
    position = int(foreign_positions[-1])
    source = traced.sources[int(traced.source[position])]
    assert source.message is not None
    return traced.text[position + 1 : end], (source.message, source.field, int(traced.offset[position]))


def reply_lead(ending: str, prefix_text: str) -> str | None:
    """What a reply begins with, beside its own words; None when the two texts leave that open.

    `ending` is the end of a served prompt, `prefix_text` what a finished conversation has before a reply. The reply
    begins with what `prefix_text` holds after all of `ending`, white space between words aside: a template that spaces
    the two differently still leaves no doubt. If one is the end of the other, the words follow the same text in both. A
    prompt that ends in no text of the template's own gives nothing to compare with.
    """
    if not ending.strip():
        return None
    if prefix_text.startswith(ending):
        return prefix_text[len(ending) :]
    if prefix_text.strip() and (ending.endswith(prefix_text) or prefix_text.endswith(ending)):
        return ""
    position = 0
    for character in ending:
        if character.isspace():
            continue
        while position < len(prefix_text) and prefix_text[position].isspace():
            position += 1
        if position == len(prefix_text) or prefix_text[position] != character:
            return None
        position += 1
    lead = prefix_text[position:]
    return lead.lstrip() if ending[-1:].isspace() or not lead.strip() else lead
