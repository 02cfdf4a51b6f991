"""Short pieces of rows, for evidence: what a ledger shows of a text."""

from __future__ import annotations

from typing import Final

EXCERPT_CHARACTERS: Final = 60


def excerpt(text: str, at: int = 0, *, length: int = EXCERPT_CHARACTERS) -> str:
    """At most `length` characters of a text around a place, in quotes, with `...` where it was cut."""
    start = max(0, min(at - length // 3, len(text) - length))
    end = start + length
    return f"{'...' if start else ''}{text[start:end]!r}{'...' if end < len(text) else ''}"


def difference(before: str, after: str, *, length: int = EXCERPT_CHARACTERS) -> str:
    """What changed in a text, from the first place to the last where the two differ: `'was' -> 'is'`, both cut."""
    start = _shared_beginning(before, after)
    tail = _shared_beginning(before[start:][::-1], after[start:][::-1])
    context = max(0, start - 10)
    was, now = before[context : len(before) - tail + 5], after[context : len(after) - tail + 5]
    cut_was, cut_now = (text if len(text) <= length else f"{text[:length]}..." for text in (was, now))
    return f"{cut_was!r} -> {cut_now!r}"


def _shared_beginning(left: str, right: str) -> int:
    """How many characters both begin with: a search by halves, as comparing stretches is far faster than characters."""
    shared, most = 0, min(len(left), len(right))
    while shared < most:
        middle = (shared + most + 1) // 2
        if left[shared:middle] == right[shared:middle]:
            shared = middle
        else:
            most = middle - 1
    return shared
