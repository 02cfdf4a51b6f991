"""What prompts begin with alike, so that it is computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tutelage.types import TokenIds

LEAST_TOKENS = 8
"""A shorter beginning costs more calls than it spares products."""

LEAST_PROMPTS = 4
"""With fewer prompts, products over a beginning of their own spare nothing."""


def shared_beginnings(prompts: Sequence[TokenIds]) -> list[int]:
    """For each prompt how many of its first tokens it shares with others; 0 where that is not worth it.

    Prompts with the same number and the same tokens up to there share them. A prompt never begins with all of itself,
    as its last token is what the reply is read from.
    """
    shared = [0] * len(prompts)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        if len(prompt) > LEAST_TOKENS:
            groups[np.ascontiguousarray(prompt[:LEAST_TOKENS]).tobytes()].append(place)
    for places in groups.values():
        if len(places) < LEAST_PROMPTS:
            continue
        first = prompts[places[0]]
        tokens = min(len(prompts[place]) for place in places) - 1
        for place in places[1:]:
            differing = np.flatnonzero(first[:tokens] != prompts[place][:tokens])
            tokens = int(differing[0]) if len(differing) else tokens
        for place in places:
            shared[place] = tokens
    return shared
