"""A served prompt that opens a block of reasoning which the finished turn does not have: what the reply begins with.

The block is known by its tag (`reasoning.toml`), by a tag of another name, or by words of the template's own; how it is
closed is asked of the template, and only a tag closes itself where the template never does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tutelage.render.chat_template.message_format import ARGUMENT, CALL_ID, FUNCTION, VALUE
from tutelage.render.chat_template.reasoning import OpenBlock, has_tags, speaks_of_reasoning
from tutelage.render.missing_stop import PROBE
from tutelage.render.rendered_row import SeenRow
from tutelage.render.required_text import Unproven
from tutelage.render.text_spans import place_of
from tutelage.types import Message, ToolCall

_TAG = re.compile(r"<([A-Za-z][\w:-]*)>(\s*)")


@dataclass(frozen=True, slots=True)
class OpenWords:
    """What a prompt ends in beyond the header of the turn, and what leaves it again.

    Attributes:
        text: the words, or a tag.
        closing: what the template writes between reasoning and content; None where it writes no reasoning.
        block: the block, where the words are a tag.
        lead: what the template writes between the header and the first word of a turn of calls.
    """

    text: str
    closing: str | None
    block: OpenBlock | None
    lead: str = ""


def closing_by_template(row: SeenRow, index: int, block: OpenBlock) -> str | None:
    """How the template itself goes from reasoning to what follows, white space included; None if it never does.

    Some templates write reasoning only in turns that call a tool: such a turn is asked where a plain one shows nothing.
    """
    between = _between(row, index, called=not row.form.writes_reasoning)
    if between is None or block.closing not in between:
        return None
    # What follows the tag and its white space begins the content, and a turn of calls alone has none.
    behind = between.index(block.closing) + len(block.closing)
    return between[: behind + len(between[behind:]) - len(between[behind:].lstrip())]


def closed_in_content(message: Message, block: OpenBlock, closing: str | None) -> Message | None:
    """A message whose content begins with its reasoning and leaves the block, for templates that write it inside.

    Args:
        message: the message.
        block: what its prompt opens.
        closing: how the template itself closes it; None if it never does.

    Returns:
        The message without its field of reasoning; None if its content closes a block that it does not begin with.
    """
    thought, content = (message.reasoning or "").strip(), message.content or ""
    emitted = None if thought else block.continued(content)
    if emitted is None:
        if block.closing in content:
            return None
        emitted = (block.close(thought) if closing is None else thought + closing) + content
    return replace(message, content=emitted, reasoning=None)


def opened_in_words(row: SeenRow, index: int, given: str, written: str, lead: str = "") -> OpenWords | None:
    """What opens reasoning at the end of a prompt that has more than the header of the finished turn.

    Args:
        row: the row.
        index: of the message.
        given: what the template writes at the end of the prompt.
        written: what it writes before the turn's words in the finished conversation, the header.
        lead: what stands between the header and the first word of a turn of calls.
    """
    if not written.strip() or not given.startswith(written):
        return None
    text = given[len(written) :]
    if not text.strip() or has_tags(text):
        return None
    tag = _TAG.fullmatch(text)
    if tag is not None:
        return OpenWords(text, None, OpenBlock(text.rstrip(), f"</{tag[1]}>", tag[2]), lead)
    if not (row.form.writes_reasoning and speaks_of_reasoning(text)):
        return None
    between = _between(row, index, called=bool(lead))
    if between is None or not between.endswith(lead):
        return None
    closing = between.removesuffix(lead)
    return OpenWords(text, closing, None, lead) if closing.strip() and closing.strip() not in text else None


@dataclass(frozen=True, slots=True)
class PlainTurn:
    """How the template writes a turn of plain words in the place of a message.

    Attributes:
        header: what stands between the words of the messages before and its own.
        neighbour: the origin of the last character before the header, as in `Place`.
        after: what stands behind its words, to the end of the rendering.
    """

    header: str
    neighbour: tuple[int, str, int] | None
    after: str


def plain_turn(row: SeenRow, index: int) -> PlainTurn | None:
    """The turn of message `index` as if it had plain words and nothing else; None if the template writes none."""
    try:
        traced = row.trace(index + 1, generation_prompt=False, last=row.form.message(Message("assistant", PROBE)))
    except Unproven:
        return None
    place = place_of(traced, index)
    return None if place is None else PlainTurn(place.written, place.neighbour, traced.text[place.last :])


def _between(row: SeenRow, index: int, *, called: bool) -> str | None:
    """What the template writes between the reasoning of a turn and its content or call."""
    if called and not row.form.writes_calls:
        return None
    call = ToolCall(FUNCTION, {ARGUMENT: VALUE}, id=CALL_ID)
    asked = Message("assistant", None if called else PROBE, reasoning=PROBE, tool_calls=(call,) if called else ())
    try:
        text = row.trace(index + 1, generation_prompt=False, last=row.form.message(asked)).text
    except Unproven:
        return None
    if called:
        first = text.rfind(PROBE)
        end = text.find(FUNCTION, first)
        return text[first + len(PROBE) : end] if first >= 0 and end >= 0 else None
    last = text.rfind(PROBE)
    first = text.rfind(PROBE, 0, max(last, 0))
    return text[first + len(PROBE) : last] if first >= 0 else None
