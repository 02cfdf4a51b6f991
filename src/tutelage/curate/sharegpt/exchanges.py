"""The exchanges of a conversation: a question and all that is said to it until the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutelage.types import Conversation, Message

Exchange = tuple[Message, ...]
"""A user turn first; then replies, each but the last followed by results of the tools it calls."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """A conversation taken apart.

    Attributes:
        opening: its system turns.
        leading: turns between those and the first question, which answer nothing.
        exchanges: the rest, in order.
    """

    opening: tuple[Message, ...]
    leading: tuple[Message, ...]
    exchanges: tuple[Exchange, ...]

    @classmethod
    def of(cls, conversation: Conversation) -> Exchanges:
        """Take a conversation apart, whatever its turns are."""
        messages = conversation.messages
        systems = next((place for place, one in enumerate(messages) if one.role != "system"), len(messages))
        first = next((place for place, one in enumerate(messages) if one.role == "user"), len(messages))
        starts = [place for place in range(first, len(messages)) if messages[place].role == "user"]
        ends = [*starts, len(messages)][1:]
        exchanges = tuple(messages[start:end] for start, end in zip(starts, ends, strict=True))
        return cls(messages[:systems], messages[systems:first], exchanges)

    def joined(self, exchanges: Sequence[Exchange]) -> tuple[Message, ...]:
        """The turns of a conversation of some of the exchanges; each has the system turns in front."""
        return (*self.opening, *(message for exchange in exchanges for message in exchange))


def out_of_turn(exchange: Exchange) -> str | None:
    """What stands where it cannot in an exchange, as a sentence; None where all is in turn."""
    before = exchange[0]
    for message in exchange[1:]:
        in_turn = {
            "assistant": before.role in ("user", "tool"),
            "tool": before.role == "tool" or (before.role == "assistant" and bool(before.tool_calls)),
        }
        if not in_turn.get(message.role, False):
            return f"{message.role} behind {before.role}: {(message.content or '')[:60]!r}"
        before = message
    if before.role != "assistant":
        return f"a question without a reply: {(exchange[0].content or '')[:60]!r}"
    return None


def grouped(
    exchanges: Sequence[Exchange], tokens_of: Callable[[Exchange], int], base: int, most: int
) -> list[tuple[tuple[Exchange, ...], int]]:
    """Exchanges in parts that are each as long as fits, and the tokens of each part. Every exchange is in one part.

    An exchange that is too long by itself is a part of its own: what becomes of it is not decided here.

    Args:
        exchanges: in order.
        tokens_of: the tokens of one.
        base: tokens that each part has in front.
        most: tokens of a part.
    """
    parts: list[tuple[tuple[Exchange, ...], int]] = []
    current: tuple[Exchange, ...] = ()
    length = base
    for exchange in exchanges:
        tokens = tokens_of(exchange)
        if current and length + tokens > most:
            parts.append((current, length))
            current, length = (), base
        current, length = (*current, exchange), length + tokens
    return [*parts, (current, length)] if current else parts
