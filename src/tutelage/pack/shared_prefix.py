"""Shared prefixes: a beginning that several documents of a row have in common is laid down, and computed, once.

Causal attention makes this exact: what the model computes for a token depends on the tokens before it only, so equal
beginnings have equal hidden states, and the gradients of all documents add up in the one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tutelage.types import Example

MIN_SHARED_TOKENS = 16
"""Shorter beginnings are laid down again: each shared stretch costs an attention call of its own in every layer.
Source: our choice; 16 tokens of a small model cost far more than that call, see benchmarks/train/prefixes.py."""
MIN_SAVED_SHARE = 1 / 12
"""Tokens that sharing saves, for each token behind what is shared: attention to it is another piece for all of those.
Source: docs/log.md, "What sharing a beginning costs"."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens `start` to `end` of an example, laid down behind those of the stretch `parent` (-1: behind nothing).

    `is_document` is False for a stretch that several documents share: it is context, never trained.
    """

    example: int
    start: int
    end: int
    parent: int
    is_document: bool


def by_content(examples: Sequence[Example]) -> list[int]:
    """Indices of `examples` sorted by their ids, so that common beginnings stand side by side."""
    return sorted(range(len(examples)), key=lambda index: examples[index].ids.astype(">i4").tobytes())


def shared_with_next(examples: Sequence[Example]) -> list[int]:
    """For each example but the last: how many tokens it begins with in common with the next one.

    A token that either of them trains, and what comes after it, is not counted.
    """
    firsts = [_first_trained(example) for example in examples]
    return [
        min(_common(one.ids, other.ids), here, there)
        for (one, other), (here, there) in zip(pairwise(examples), pairwise(firsts), strict=True)
    ]


def stretches(examples: Sequence[Example], shared: Sequence[int]) -> list[Stretch]:
    """The stretches in which `examples` are laid down: a parent stands before its children.

    The last stretch of each example is a document of its own and never empty, as it trains something.

    Args:
        examples: sorted by content.
        shared: what `shared_with_next` says of them; all zero lays each document down alone.
    """
    laid: list[Stretch] = []
    # Each entry: examples low..high-1 have the same first `start` tokens, which end with stretch `parent`.
    waiting = [(0, len(examples), 0, -1)]
    while waiting:
        low, high, start, parent = waiting.pop()
        if high - low == 1:
            laid.append(Stretch(low, start, len(examples[low].ids), parent, True))
            continue
        depth = min(shared[low : high - 1])
        saved, behind = (
            (depth - start) * (high - low - 1),
            sum(len(example.ids) - depth for example in examples[low:high]),
        )
        if depth - start >= MIN_SHARED_TOKENS and saved >= MIN_SAVED_SHARE * behind:
            laid.append(Stretch(low, start, depth, parent, False))
            start, parent = depth, len(laid) - 1
        least = max(start + MIN_SHARED_TOKENS, depth + 1)  # neighbours with less in common part here
        cuts = [at + 1 for at in range(low, high - 1) if shared[at] < least]
        edges = [low, *cuts, high]
        waiting += [(a, b, start, parent) for a, b in reversed(list(pairwise(edges)))]
    return laid


def packed_tokens(examples: Sequence[Example], shared: Sequence[int]) -> int:
    """Tokens that `examples`, sorted by content, take in a row."""
    return sum(stretch.end - stretch.start for stretch in stretches(examples, shared))


def _first_trained(example: Example) -> int:
    trained = example.weights.nonzero()[0]
    return int(trained[0]) if len(trained) else 0


def _common(one: np.ndarray, other: np.ndarray) -> int:
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
