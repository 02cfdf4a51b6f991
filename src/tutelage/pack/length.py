"""Length policy: a row any of whose sequences is longer than the limit goes, counted. Nothing is ever cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tutelage.ledger import Ledger
from tutelage.types import Conversation, Drop, Example


def within_limit(
    proven: Iterable[tuple[Conversation, tuple[Example, ...]]], *, max_tokens: int, ledger: Ledger
) -> Iterator[tuple[Conversation, tuple[Example, ...]]]:
    """Pass on rows whose every sequence has at most `max_tokens` tokens; the last door, so it also keeps the books."""
    for conversation, examples in proven:
        longest = max(len(one.ids) for one in examples)
        if longest > max_tokens:
            detail = f"{longest} tokens; the limit pack.max_tokens is {max_tokens}"
            ledger.drop(Drop(conversation.address, "too_long", detail))
            continue
        ledger.keep()
        yield conversation, examples
