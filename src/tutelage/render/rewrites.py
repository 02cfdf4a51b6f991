"""A row that is not proven as it stands, written as a server may have it too: its reasoning elsewhere, or asked for.

A server that takes reasoning out of what a model emitted hands it back in a field, and a server that is asked to reason
is asked with an argument of the template. Each rewritten row is proven as any row is, and the ledger hears of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tutelage.render.chat_template.reasoning import leading_block, names_reasoning
from tutelage.types import Change, Conversation, Message

if TYPE_CHECKING:
    from tutelage.render.renderer import Renderer

_BY_FIELD = ("prompt_not_a_prefix", "content_not_in_reply")
_BY_ARGUMENT = ("reasoning_not_in_reply",)


def rewritten(
    conversation: Conversation, renderer: Renderer, reason: str | None = None
) -> Iterator[tuple[Conversation, Change]]:
    """Other forms of a row that a server may have, each with the remark that tells of it.

    Args:
        conversation: the row.
        renderer: knows which field of reasoning the template writes, which arguments it has, and the policy for
            prompts that close the block of reasoning.
        reason: why the row was not proven as it stands; None for all forms.
    """
    if renderer.form.writes_reasoning and (reason is None or reason in _BY_FIELD):
        messages = tuple(with_reasoning_in_field(message) for message in conversation.messages)
        moved = [index for index, message in enumerate(conversation.messages) if message is not messages[index]]
        if moved:
            listed = ", ".join(map(str, moved[:3])) + (", ..." if len(moved) > 3 else "")
            detail = f"message {listed}: the reasoning of the content is handed over as {renderer.form.reasoning}"
            yield replace(conversation, messages=messages), Change(conversation.address, "reasoning_moved", detail)
    if renderer.closed_reasoning == "open" and (reason is None or reason in _BY_ARGUMENT):
        given = {*conversation.template_arguments, *renderer.template.arguments}
        for name, value in renderer.effective_arguments:
            if name in given or not names_reasoning(name):
                continue
            arguments = {**conversation.template_arguments, name: value}
            detail = f"served with {name} = {json.dumps(value)}, which leaves the turns room for their reasoning"
            remark = Change(conversation.address, "reasoning_opened", detail)
            yield replace(conversation, template_arguments=arguments), remark


def with_reasoning_in_field(message: Message) -> Message:
    """A message with the block of reasoning that its content begins with in its field; itself where there is none."""
    block = leading_block(message.content or "") if message.role == "assistant" else None
    if block is None or not block[0].strip() or (message.reasoning or "").strip():
        return message
    return replace(message, reasoning=block[0].strip(), content=block[1].lstrip())
