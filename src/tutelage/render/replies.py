"""A trained turn as text, and a reply on the way there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tutelage.render.chat_template.reasoning import without_empty_block
from tutelage.render.rendered_row import RenderedRow
from tutelage.types import Change

Remarks = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A trained turn as text.

    Attributes:
        message: its index in the conversation.
        weight: of its loss.
        prompt: what a server feeds.
        reply: what the model must emit, stop token included if the template writes one.
        stop_written: whether it does; otherwise the stop token is to be appended.
        remarks: what the ledger is to hear of it.
    """

    message: int
    weight: float
    prompt: str
    reply: str
    stop_written: bool
    remarks: Remarks = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in two parts: its content with all that the template writes before and in it, and the text after it."""

    body: str
    suffix: str
    remarks: Remarks = ()


def with_block_remark(row: RenderedRow, index: int, reply: Reply) -> Reply:
    """The reply, with a remark where the content begins with an empty block of reasoning that the reply leaves out."""
    content = (row.conversation.messages[index].content or "").lstrip()
    bare = without_empty_block(content)
    if bare == content or content[: len(content) - len(bare)].strip() in reply.body:
        return reply
    detail = f"message {index}: the empty block of reasoning that the content begins with is not part of the reply"
    remark = Change(row.conversation.address, "empty_block_left_out", detail)
    return replace(reply, remarks=(*reply.remarks, remark))
