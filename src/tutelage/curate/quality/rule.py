"""What a rule of quality is: it names what is wrong with a row, with words of it as evidence, or says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import RuleSettings
from tutelage.curate.prose import outside_backticks
from tutelage.curate.screens import TextColumn
from tutelage.curate.texts import message_text
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
        self.replies = tuple([message.content for message in messages if is_learned(message) and message.content])
        self.documents = tuple([message.content or "" for message in messages if message.role == "text"])

    @property
    def learned(self) -> tuple[str, ...]:
        """Replies, or the text of a document."""
        return self.replies or self.documents

    @cached_property
    def prompt(self) -> str:
        """What the users say."""
        return prompt_of(self.conversation)

    @cached_property
    def prose(self) -> tuple[str, ...]:
        """`learned` without what stands in backticks or fences."""
        return tuple(map(outside_backticks, self.learned))


def prompt_of(conversation: Conversation) -> str:
    """What the users say."""
    texts = [message.content or "" for message in conversation.messages if message.role == "user"]
    return texts[0] if len(texts) == 1 else "\n\n".join(texts)


def learned_of(conversation: Conversation) -> list[str]:
    """Replies, or the text of a document."""
    messages = conversation.messages
    replies = [message.content for message in messages if is_learned(message) and message.content]
    return replies or [message.content or "" for message in messages if message.role == "text"]


def is_learned(message: Message) -> bool:
    """Whether a turn is a reply that is trained."""
    return message.role == "assistant" and message.weight != 0


class ChunkTexts:
    """The texts of a chunk's rows side by side, for screens; each column is made for the first rule that asks.

    Args:
        conversations: the rows, N.
    """

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self.conversations = conversations

    @cached_property
    def turns(self) -> TextColumn:
        """The text of every turn; an empty one where there is none."""
        return TextColumn([[message.content or "" for message in row.messages] for row in self.conversations])

    @cached_property
    def said(self) -> TextColumn:
        """All that every turn says: its text, reasoning and calls."""
        return TextColumn([list(map(message_text, row.messages)) for row in self.conversations])

    @cached_property
    def learned(self) -> TextColumn:
        """Replies, or the text of a document, as `RowTexts.learned` has them."""
        return TextColumn([learned_of(row) for row in self.conversations])

    @cached_property
    def last_learned(self) -> TextColumn:
        """The last of those of each row; none of a row that has none."""
        learned = self.learned
        ends = np.cumsum(learned.counts)
        has_any = learned.counts > 0
        return TextColumn([[learned.flat[end - 1]] if some else [] for end, some in zip(ends, has_any, strict=True)])

    @cached_property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """Characters of what the users of each row say, int64 [N]."""
        return np.fromiter((len(prompt_of(row)) for row in self.conversations), np.int64, len(self.conversations))


Rule = Callable[[RowTexts], str | None]
"""What is wrong with a row, as a sentence with words of it; None where the rule has nothing to say. Picklable."""


@runtime_checkable
class ScreenedRule(Protocol):
    """A rule that tells of a whole chunk at once in which rows it may find something."""

    def __call__(self, row: RowTexts) -> str | None:
        """As `Rule`."""

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Where it may find something, bool [rows]; where not, it finds nothing."""


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
