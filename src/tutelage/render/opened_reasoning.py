"""A served prompt that opens a block of reasoning which the finished turn does not have: what the reply begins with.

The block is known by its tag (`reasoning.toml`), by a tag of another name, or by words of the template's own; how it is
closed is asked of the template, and only a tag closes itself where the template never does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec.structs import replace

from tutelage.render.chat_template.message_format import ARGUMENT, CALL_ID, FUNCTION, VALUE
from tutelage.render.chat_template.reasoning import OpenBlock, has_reasoning_tags, names_reasoning
from tutelage.render.missing_stop import PROBE
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import Unproven
from tutelage.render.text_spans import span_of
from tutelage.types import Message, ToolCall

_TAG = re.compile(r"<([A-Za-z][\w:-]*)>(\s*)")


@dataclass(frozen=True, slots=True)
class Opener:
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


def template_closing(row: RenderedRow, index: int, block: OpenBlock) -> str | None:
    """How the template itself goes from reasoning to what follows, white space included; None if it never does.

    Some templates write reasoning only in turns that call a tool: such a turn is asked where a plain one shows nothing.
    """
    separator = _reasoning_separator(row, index, calls_tool=not row.form.writes_reasoning)
    if separator is None or block.closing not in separator:
        return None
    # What follows the tag and its white space begins the content, and a turn of calls alone has none.
    end = separator.index(block.closing) + len(block.closing)
    return separator[: end + len(separator[end:]) - len(separator[end:].lstrip())]


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
    emitted = None if thought else block.continuation(content)
    if emitted is None:
        if block.closing in content:
            return None
        emitted = (block.close(thought) if closing is None else thought + closing) + content
    return replace(message, content=emitted, reasoning=None)


def reasoning_opener(row: RenderedRow, index: int, ending: str, header: str, lead: str = "") -> Opener | None:
    """What opens reasoning at the end of a prompt that has more than the header of the finished turn.

    Args:
        row: the row.
        index: of the message.
        ending: what the template writes at the end of the prompt.
        header: what it writes before the turn's words in the finished conversation, the header.
        lead: what stands between the header and the first word of a turn of calls.
    """
    if not header.strip() or not ending.startswith(header):
        return None
    text = ending[len(header) :]
    if not text.strip() or has_reasoning_tags(text):
        return None
    tag = _TAG.fullmatch(text)
    if tag is not None:
        return Opener(text, None, OpenBlock(text.rstrip(), f"</{tag[1]}>", tag[2]), lead)
    if not (row.form.writes_reasoning and names_reasoning(text)):
        return None
    separator = _reasoning_separator(row, index, calls_tool=bool(lead))
    if separator is None or not separator.endswith(lead):
        return None
    closing = separator.removesuffix(lead)
    return Opener(text, closing, None, lead) if closing.strip() and closing.strip() not in text else None


@dataclass(frozen=True, slots=True)
class PlainTurn:
    """How the template writes a turn of plain words in the place of a message.

    Attributes:
        header: what stands between the words of the messages before and its own.
        neighbor: the origin of the last character before the header, as in `TextSpan`.
        suffix: what stands behind its words, to the end of the rendering.
    """

    header: str
    neighbor: tuple[int, str, int] | None
    suffix: str


def plain_turn(row: RenderedRow, index: int) -> PlainTurn | None:
    """The turn of message `index` as if it had plain words and nothing else; None if the template writes none."""
    try:
        traced = row.trace(index + 1, generation_prompt=False, last=row.form.message(Message("assistant", PROBE)))
    except Unproven:
        return None
    span = span_of(traced, index)
    return None if span is None else PlainTurn(span.prefix_text, span.neighbor, traced.text[span.end :])


def _reasoning_separator(row: RenderedRow, index: int, *, calls_tool: bool) -> str | None:
    """What the template writes between the reasoning of a turn and its content or call."""
    if calls_tool and not row.form.writes_calls:
        return None
    call = ToolCall(FUNCTION, {ARGUMENT: VALUE}, id=CALL_ID)
    turn = Message(
        "assistant", None if calls_tool else PROBE, reasoning=PROBE, tool_calls=(call,) if calls_tool else ()
    )
    try:
        text = row.trace(index + 1, generation_prompt=False, last=row.form.message(turn)).text
    except Unproven:
        return None
    if calls_tool:
        first = text.rfind(PROBE)
        end = text.find(FUNCTION, first)
        return text[first + len(PROBE) : end] if first >= 0 and end >= 0 else None
    last = text.rfind(PROBE)
    first = text.rfind(PROBE, 0, max(last, 0))
    return text[first + len(PROBE) : last] if first >= 0 else None
