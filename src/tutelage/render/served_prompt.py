"""The prompt of a conversation in progress: what a server feeds, and what the trained turn behind it was proven on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from tutelage.render.chat_template.message_format import MessageFormat
from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal
from tutelage.render.rendered_row import RenderedRow, repeated_reasoning, with_messages
from tutelage.render.special_tokens import SpecialTokens
from tutelage.types import Address, Conversation, Message

Tools: TypeAlias = Sequence[Mapping[str, Any]]
"""On offer."""
Arguments: TypeAlias = Mapping[str, Any]
"""Of the template, as a row has them; `documents` among them."""
NONE: Arguments = MappingProxyType({})


def served_row(
    template: ChatTemplate,
    form: MessageFormat,
    messages: Sequence[Message],
    tools: Tools = (),
    arguments: Arguments = NONE,
) -> RenderedRow:
    """All turns so far, reasoning written once, as a row of data is."""
    conversation = Conversation(tuple(messages), Address("", 0), tuple(tools), arguments)
    repeated = repeated_reasoning(conversation, form)
    return RenderedRow(with_messages(conversation, repeated) if repeated else conversation, template, form)


def served_text(row: RenderedRow) -> str:
    """All turns of a row, and what makes the model reply.

    Raises:
        TemplateRefusal: the template does not accept them.
    """
    return row.template.render(
        row.messages,
        generation_prompt=True,
        tools=row.tools,
        documents=row.documents,
        arguments=row.conversation.template_arguments,
    )


def escaped_ids(row: RenderedRow, special_tokens: SpecialTokens) -> list[int] | None:
    """Ids of `served_text` where data spells special tokens, these as ordinary characters; None where it spells none.

    Nobody outside can then write a turn that was never held.

    Raises:
        TemplateRefusal: it spells some, and as the template writes them they cannot be told from its own.
    """
    conversation: Conversation = row.conversation
    spelled = special_tokens.first_spelled(conversation)
    if spelled is None and not special_tokens.may_join(conversation):
        return None
    traced = row.template.trace(
        row.messages,
        generation_prompt=True,
        tools=row.tools,
        documents=row.documents,
        arguments=conversation.template_arguments,
    )
    if spelled is not None and not traced.followed:
        location, token_text = spelled
        raise TemplateRefusal(f"{location} spells the control token {token_text!r}, and cannot be escaped")
    spans = special_tokens.escaped_spans(traced, conversation)
    return special_tokens.encode(traced.text, spans) if spans else None
