"""A row as one template is handed it: the messages in the template's spelling, and what it makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tutelage.render.forms import MessageForm, Seen
from tutelage.render.provenance import Traced
from tutelage.render.template import ChatTemplate, TemplateRefusal
from tutelage.render.words import Unproven
from tutelage.types import Conversation


@dataclass(frozen=True)
class SeenRow:
    """A conversation as one template is handed it, and its renderings."""

    conversation: Conversation
    template: ChatTemplate
    form: MessageForm

    @cached_property
    def messages(self) -> list[Seen]:
        """All messages as the template sees them."""
        return self.form.sees(self.conversation)

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """The tools on offer."""
        return [dict(tool) for tool in self.conversation.tools]

    @cached_property
    def documents(self) -> list[dict[str, Any]] | None:
        """The documents that the row's template arguments bring along."""
        given = self.conversation.template_arguments.get("documents")
        return given if isinstance(given, list) and given else None

    def render(self, count: int, *, generation_prompt: bool, following: Sequence[Seen] = ()) -> str:
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

    def trace(self, count: int, *, generation_prompt: bool, last: Seen | None = None) -> Traced:
        """The same with the origin of each character; `last` stands in for the last message.

        Raises:
            Unproven: the template refuses them.
        """
        messages = self.messages[:count] if last is None else [*self.messages[: count - 1], last]
        try:
            return self.template.trace(
                messages,
                generation_prompt=generation_prompt,
                tools=self.tools,
                documents=self.documents,
                arguments=self.conversation.template_arguments,
            )
        except TemplateRefusal as refusal:
            raise Unproven("template_refused", f"the template does not accept this row: {refusal}") from refusal
