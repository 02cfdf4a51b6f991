"""A row as one template is handed it: the messages in the template's spelling, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from tutelage.render.chat_template.message_format import MessageFormat, TemplateMessage
from tutelage.render.chat_template.reasoning import leading_block
from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.required_text import Unproven
from tutelage.types import Conversation, Message


def repeated_reasoning(conversation: Conversation, form: MessageFormat) -> dict[int, Message]:
    """The messages that have their reasoning twice, in its field and in a block before the content: index -> once.

    It stays in the field where the template writes one, else in the content.
    """
    repeated = {}
    for index, message in enumerate(conversation.messages):
        thought = (message.reasoning or "").strip()
        block = leading_block(message.content or "") if thought else None
        if block is not None and block[0].strip() == thought:
            by_field = replace(message, content=block[1].lstrip())
            repeated[index] = by_field if form.writes_reasoning else replace(message, reasoning=None)
    return repeated


def with_messages(conversation: Conversation, changed: Mapping[int, Message]) -> Conversation:
    """The row with others of its messages: index -> message."""
    messages = tuple(changed.get(index, message) for index, message in enumerate(conversation.messages))
    return replace(conversation, messages=messages)


@dataclass(frozen=True)
class RenderedRow:
    """A conversation as one template is handed it, and its renderings."""

    conversation: Conversation
    template: ChatTemplate
    form: MessageFormat

    @cached_property
    def messages(self) -> list[TemplateMessage]:
        """All messages as the template sees them."""
        return self.form.messages(self.conversation)

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """The tools on offer."""
        return [dict(tool) for tool in self.conversation.tools]

    @cached_property
    def documents(self) -> list[dict[str, Any]] | None:
        """The documents that the row's template arguments bring along."""
        documents = self.conversation.template_arguments.get("documents")
        return documents if isinstance(documents, list) and documents else None

    def render(self, count: int, *, generation_prompt: bool, following: Sequence[TemplateMessage] = ()) -> str:
        """The text of the first `count` messages, and of `following` behind them.

        Raises:
            Unproven: the template refuses them.
        """
        try:
            return self.template.render(
                [*self.messages[:count], *following],
                generation_prompt=generation_prompt,
                tools=self.tools,
                documents=self.documents,
                arguments=self.conversation.template_arguments,
            )
        except TemplateRefusal as refusal:
            raise Unproven("template_refused", f"the template does not accept this row: {refusal}") from refusal

    def trace(
        self,
        count: int,
        *,
        generation_prompt: bool,
        last: TemplateMessage | None = None,
        following: Sequence[TemplateMessage] = (),
    ) -> Traced:
        """The same with the origin of each character; `last` stands in for the last of the first `count` messages.

        Raises:
            Unproven: the template refuses them.
        """
        messages = self.messages[:count] if last is None else [*self.messages[: count - 1], last]
        try:
            return self.template.trace(
                [*messages, *following],
                generation_prompt=generation_prompt,
                tools=self.tools,
                documents=self.documents,
                arguments=self.conversation.template_arguments,
            )
        except TemplateRefusal as refusal:
            raise Unproven("template_refused", f"the template does not accept this row: {refusal}") from refusal
