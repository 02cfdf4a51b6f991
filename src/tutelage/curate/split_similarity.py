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


def most_similar(first_split: Sequence[Conversation], second_split: Sequence[Conversation]) -> Similarity | None:
    """Compare what the users of two splits say; None when either is empty.

    Cost grows with the pairs that share a shingle, not with all pairs.
    """
    if not first_split or not second_split:
        return None
    sets = [_shingles(conversation) for conversation in first_split]
    holders: dict[str, list[int]] = defaultdict(list)
    for index, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(index)
    best, best_pair, near_duplicates = -1.0, (0, 0), 0
    for index, conversation in enumerate(second_split):
        shingles = _shingles(conversation)
        shared = Counter(holder for shingle in shingles for holder in holders.get(shingle, ()))
        shared.setdefault(0, 0)
        for holder, count in shared.items():
            similarity = count / max(1, len(shingles) + len(sets[holder]) - count)
            near_duplicates += similarity >= NEAR_DUPLICATE
            if similarity > best:
                best, best_pair = similarity, (holder, index)
    return Similarity(best, first_split[best_pair[0]].address, second_split[best_pair[1]].address, near_duplicates)


def _shingles(conversation: Conversation) -> set[str]:
    user_text = " ".join(message.content or "" for message in conversation.messages if message.role in ("user", "text"))
    text = re.sub(r"\s+", " ", user_text.casefold()).strip()
    width = SHINGLE_CHARACTERS
    return {text[start : start + width] for start in range(max(1, len(text) - width + 1))}
