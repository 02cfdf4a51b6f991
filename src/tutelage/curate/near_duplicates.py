"""Near-duplicates between splits: the highest Jaccard similarity of character 5-grams.

Source: resemblance of shingle sets, Broder 1997, section 2; exact here, not estimated.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.types import Address, Conversation

SHINGLE_CHARACTERS = 5
NEAR_DUPLICATE = 0.7
"""Pairs at or above this are called near-duplicates. Source: the threshold of Lee et al. 2022 (section 4.2) is 0.8 on
token 5-grams of documents; short prompts need a lower one, as a word or two is a large share of them."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """The two most alike prompts of two splits, and how many pairs reach the threshold of a near-duplicate."""

    similarity: float
    first: Address
    second: Address
    near_duplicates: int


def most_similar(left: Sequence[Conversation], right: Sequence[Conversation]) -> Similarity | None:
    """Compare what the users of two splits say; None when either is empty.

    Cost grows with the pairs that share a shingle, not with all pairs.
    """
    if not left or not right:
        return None
    sets = [_shingles(one) for one in left]
    holders: dict[str, list[int]] = defaultdict(list)
    for index, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(index)
    best, pair, near = -1.0, (0, 0), 0
    for index, conversation in enumerate(right):
        shingles = _shingles(conversation)
        shared = Counter(holder for shingle in shingles for holder in holders.get(shingle, ()))
        shared.setdefault(0, 0)
        for holder, count in shared.items():
            similarity = count / max(1, len(shingles) + len(sets[holder]) - count)
            near += similarity >= NEAR_DUPLICATE
            if similarity > best:
                best, pair = similarity, (holder, index)
    return Similarity(best, left[pair[0]].address, right[pair[1]].address, near)


def _shingles(conversation: Conversation) -> set[str]:
    said = " ".join(message.content or "" for message in conversation.messages if message.role in ("user", "text"))
    text = re.sub(r"\s+", " ", said.casefold()).strip()
    width = SHINGLE_CHARACTERS
    return {text[start : start + width] for start in range(max(1, len(text) - width + 1))}
