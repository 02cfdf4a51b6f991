"""Where the words of a turn lie in a rendering, by the origin of each character; and what stands around them.

The template's own text around a turn is compared with what the served prompt ends with, so that a reply can be found
even where the template writes a finished conversation otherwise than the prompt it is served with.

Shape legend: C = characters of a rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.render.chat_template import tracing as provenance
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.required_text import SHOWN_CHARACTERS, Unproven

OWN, OTHERS, TEMPLATE = 1, 2, 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one message's words lie in a rendering.

    Attributes:
        first: the first of its characters.
        last: one after the last of them.
        written: what the template wrote just before `first`, after the words of any other message.
        neighbour: the origin (message, field, offset) of the last character before `written`; None if there is none.
    """

    first: int
    last: int
    written: str
    neighbour: tuple[int, str, int] | None


def owners(traced: Traced, message: int) -> NDArray[np.int8]:
    """int8 [C]: 1 for the words of `message`, 2 for those of other messages, 0 for the template's own text.

    Roles are the template's business: it writes them from a message or by itself as it likes.
    """
    kinds = [
        TEMPLATE if source.message is None or source.field == "role" else OWN if source.message == message else OTHERS
        for source in traced.sources
    ]
    # Sources below 0, the template's text, count from the end of the table.
    table = np.asarray([*kinds, *(TEMPLATE for _ in (provenance.JSON, provenance.PYTHON, provenance.OWN))], np.int8)
    return table[traced.source]


def place_of(traced: Traced, message: int, *, start: int = 0) -> Place | None:
    """The place of a message's words from character `start` on; None when the template writes none there."""
    whose = owners(traced, message)
    own = np.flatnonzero(whose[start:] == OWN)
    if not len(own):
        return None
    first, last = start + int(own[0]), start + int(own[-1]) + 1
    return Place(first, last, *_before(traced, whose, first))


def end_of_prompt(traced: Traced) -> tuple[str, tuple[int, str, int] | None]:
    """What the template writes at the end of a prompt, after all words of messages; and the origin before it."""
    return _before(traced, owners(traced, -1), len(traced.text))


def strangers(traced: Traced, message: int, first: int, last: int) -> str | None:
    """Words of another message between two characters; None when there are none."""
    whose = owners(traced, message)[first:last]
    other = np.flatnonzero(whose == OTHERS)
    return traced.text[first + int(other[0]) : first + int(other[-1]) + 1] if len(other) else None


def in_order(traced: Traced, message: int, first: int, last: int) -> bool:
    """Whether the words of a message, said or thought, stand in their own order, each at most once.

    Names and arguments of calls may stand in several places.
    """
    source, offset = traced.source[first:last], traced.offset[first:last]
    for number, one in enumerate(traced.sources):
        if one.message == message and not one.field.startswith(("role", "name", "tool_call")):
            seen = offset[(source == number) & (offset >= 0)]
            # A character that was escaped stands in several places with one offset.
            if np.any(np.diff(seen) < 0):
                return False
    return True


def require_own(traced: Traced, index: int, first: int, last: int) -> None:
    """Check that a reply holds no words of another message, and its own in their order.

    Raises:
        Unproven: it does not.
    """
    if (words := strangers(traced, index, first, last)) is not None:
        raise Unproven(
            "foreign_text_in_reply",
            f"message {index}: the template puts another message's words in the reply: {words[:SHOWN_CHARACTERS]!r}",
        )
    if not in_order(traced, index, first, last):
        raise Unproven(
            "foreign_text_in_reply",
            f"message {index}: the template writes the turn's words more than once or in another order: "
            f"{traced.text[first:last][:SHOWN_CHARACTERS]!r}",
        )


def has_content(traced: Traced, message: int, first: int, last: int) -> bool:
    """Whether a character of the message's content stands between two places, as far as that could be followed."""
    said = [source.message == message and source.field.startswith("content") for source in traced.sources]
    numbers = np.flatnonzero(said)
    return not traced.followed or bool(np.isin(traced.source[first:last], numbers).any())


def _before(traced: Traced, whose: NDArray[np.int8], end: int) -> tuple[str, tuple[int, str, int] | None]:
    words = np.flatnonzero(whose[:end] == OTHERS)
    if not len(words):
        return traced.text[:end], None
    at = int(words[-1])
    source = traced.sources[int(traced.source[at])]
    assert source.message is not None
    return traced.text[at + 1 : end], (source.message, source.field, int(traced.offset[at]))


def beyond(given: str, written: str) -> str | None:
    """What a reply begins with, beside its own words; None when the two texts leave that open.

    `given` is the end of a served prompt, `written` what a finished conversation has before a reply. The reply begins
    with what `written` holds after all of `given`, white space between words aside: a template that spaces the two
    differently still leaves no doubt. If one is the end of the other, the words follow the same text in both. A prompt
    that ends in no text of the template's own gives nothing to compare with.
    """
    if not given.strip():
        return None
    if written.startswith(given):
        return written[len(given) :]
    if written.strip() and (given.endswith(written) or written.endswith(given)):
        return ""
    position = 0
    for letter in given:
        if letter.isspace():
            continue
        while position < len(written) and written[position].isspace():
            position += 1
        if position == len(written) or written[position] != letter:
            return None
        position += 1
    rest = written[position:]
    return rest.lstrip() if given[-1:].isspace() or not rest.strip() else rest
