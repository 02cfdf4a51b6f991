"""Shared prefixes: a prefix that several documents of a row have in common is packed, and computed, once.

Causal attention makes this exact: what the model computes for a token depends on the tokens before it only, so equal
prefixes have equal hidden states, and the gradients of all documents add up in the one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tutelage.types import Example

MIN_SHARED_TOKENS = 16
"""Shorter prefixes are packed again: each shared segment costs an attention call of its own in every layer.
Source: our choice; 16 tokens of a small model cost far more than that call, see benchmarks/train/prefixes.py."""
MIN_SAVED_SHARE = 1 / 12
"""Tokens that sharing saves, for each token after the shared prefix: each of those attends to it in a call of its own.
Source: docs/log.md, "What sharing a beginning costs"."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `start` to `end` of an example, which continue those of the segment `parent` (-1: of none).

    `is_document` is False for a segment that several documents share: it is context, never trained.
    """

    example: int
    start: int
    end: int
    parent: int
    is_document: bool


def sorted_by_content(examples: Sequence[Example]) -> list[int]:
    """Indices of `examples` sorted by their ids, so that common prefixes are neighbors."""
    return sorted(range(len(examples)), key=lambda index: examples[index].ids.astype(">i4").tobytes())


def common_tokens_with_next(examples: Sequence[Example]) -> list[int]:
    """For each example but the last: tokens of the prefix that it has in common with the next example.

    The prefix ends before the first token that either of them trains.
    """
    first_trained_positions = [_first_trained(example) for example in examples]
    return [
        min(_common_prefix_tokens(example.ids, next_example.ids), first_trained, next_first_trained)
        for (example, next_example), (first_trained, next_first_trained) in zip(
            pairwise(examples), pairwise(first_trained_positions), strict=True
        )
    ]


def segments_of(examples: Sequence[Example], common_tokens: Sequence[int]) -> list[Segment]:
    """The segments in which `examples` are packed: a parent precedes its children.

    The last segment of each example is a document of its own and never empty, as it trains something.

    Args:
        examples: sorted by content.
        common_tokens: what `common_tokens_with_next` says of them; all zero packs each document alone.
    """
    segments: list[Segment] = []
    # Each entry: examples low..high-1 have the same first `start` tokens, which end with segment `parent`.
    stack = [(0, len(examples), 0, -1)]
    while stack:
        low, high, start, parent = stack.pop()
        if high - low == 1:
            segments.append(Segment(low, start, len(examples[low].ids), parent, True))
            continue
        shared_end = min(common_tokens[low : high - 1])
        saved_tokens, remaining_tokens = (
            (shared_end - start) * (high - low - 1),
            sum(len(example.ids) - shared_end for example in examples[low:high]),
        )
        if shared_end - start >= MIN_SHARED_TOKENS and saved_tokens >= MIN_SAVED_SHARE * remaining_tokens:
            segments.append(Segment(low, start, shared_end, parent, False))
            start, parent = shared_end, len(segments) - 1
        min_common_tokens = max(start + MIN_SHARED_TOKENS, shared_end + 1)  # neighbors with less are separated
        group_starts = [index + 1 for index in range(low, high - 1) if common_tokens[index] < min_common_tokens]
        edges = [low, *group_starts, high]
        stack += [(group_start, group_end, start, parent) for group_start, group_end in reversed(list(pairwise(edges)))]
    return segments


def packed_tokens(examples: Sequence[Example], common_tokens: Sequence[int]) -> int:
    """Tokens that `examples`, sorted by content, take in a row."""
    return sum(segment.end - segment.start for segment in segments_of(examples, common_tokens))


def _first_trained(example: Example) -> int:
    trained = example.weights.nonzero()[0]
    return int(trained[0]) if len(trained) else 0


def _common_prefix_tokens(ids: np.ndarray, next_ids: np.ndarray) -> int:
    length = min(len(ids), len(next_ids))
    different = np.flatnonzero(ids[:length] != next_ids[:length])
    return int(different[0]) if len(different) else length
