"""What a rule of quality is: it names what is wrong with a row, with words of it as evidence, or says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from tutelage.config.curation_quality import RuleSettings
from tutelage.curate.prose import outside_backticks
from tutelage.types import Conversation, Message

S = TypeVar("S", bound=RuleSettings)


class RowTexts:
    """The texts of a row that rules judge; what is derived from them is computed once, for the first rule that asks.

    Args:
        conversation: the row.

    Attributes:
        replies: what is learned: the words of assistant turns whose weight is not 0, in order; a document has none.
        documents: the text of a document; none of a conversation.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        messages = conversation.messages
        self.replies = tuple(message.content for message in messages if is_learned(message) and message.content)
        self.documents = tuple(message.content or "" for message in messages if message.role == "text")

    @property
    def learned(self) -> tuple[str, ...]:
        """Replies, or the text of a document."""
        return self.replies or self.documents

    @cached_property
    def prompt(self) -> str:
        """What the users say."""
        texts = [message.content or "" for message in self.conversation.messages if message.role == "user"]
        return texts[0] if len(texts) == 1 else "\n\n".join(texts)

    @cached_property
    def prose(self) -> tuple[str, ...]:
        """`learned` without what stands in backticks or fences."""
        return tuple(map(outside_backticks, self.learned))


def is_learned(message: Message) -> bool:
    """Whether a turn is a reply that is trained."""
    return message.role == "assistant" and message.weight != 0


Rule = Callable[[RowTexts], str | None]
"""What is wrong with a row, as a sentence with words of it; None where the rule has nothing to say. Picklable."""


@dataclass(frozen=True, slots=True)
class RuleDefinition(Generic[S]):
    """An entry of the table of rules.

    Attributes:
        name: the reason in the ledger, and the rule's table of settings `[curate.quality.NAME]`.
        sentence: what it finds.
        build: makes the rule, and raises DependencyError where it cannot work.
    """

    name: str
    sentence: str
    build: Callable[[S], Rule]


AnyRule = RuleDefinition[Any]
