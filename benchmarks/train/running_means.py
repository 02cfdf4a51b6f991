"""Losses of steps from the running means that LitGPT logs; nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def losses_of_steps(running: Sequence[float], trained: Sequence[int], accumulated: int) -> list[float]:
    """The loss of each step, comparable with the others' in the first step only.

    Until `accumulated` rows are seen, the k-th running mean is that of the losses of the first k rows, so single losses
    can be read off (k times the k-th mean, less what came before) and weighted by their trained tokens. Of later steps
    stands the mean of row means, which is what LitGPT optimizes.

    Args:
        running: the mean over the last `accumulated` rows, after each row.
        trained: tokens trained in each row of the first step.
        accumulated: rows of a step.
    """
    sums = [0.0, *(mean * count for count, mean in enumerate(running[:accumulated], 1))]
    singles = [later - earlier for earlier, later in pairwise(sums)]
    first = sum(loss * count for loss, count in zip(singles, trained, strict=True)) / sum(trained)
    return [first, *running[2 * accumulated - 1 :: accumulated]]
