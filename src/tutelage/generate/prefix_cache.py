"""Keys and values of prompts and replies that came lately, so that what begins alike is not computed again.

A conversation asks with all of its turns each time, and many conversations share a system prompt. What a new prompt has
in common with a kept one is copied into its row.

Shape legend: G = key/value heads, P = tokens that are kept, K = head width, V = that of values.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from tutelage.generate.kv_cache import NO_BEGINNING, Beginning, LayerKV
from tutelage.types import TokenIds

LEAST_TOKENS = 16
"""A shorter beginning costs more copies than it spares products."""

NEW_SHARE = 0.5
"""A prompt of which more than this is new is kept as soon as it is computed; another once its reply has ended."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was computed for `ids` [P]: keys [G, P, K] and values [G, P, V] by layer, which nothing changes."""

    ids: TokenIds
    adapter: str | None
    layers: dict[int, LayerKV]

    def common(self, ids: TokenIds) -> int:
        """How many tokens `ids` begins with alike."""
        length = min(len(self.ids), len(ids))
        differing = np.flatnonzero(self.ids[:length] != ids[:length])
        return int(differing[0]) if len(differing) else length


class PrefixCache:
    """The latest of them, the least used leaving first.

    Args:
        most_tokens: that all together may have.
    """

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.reused_tokens = 0
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._number = 0

    @property
    def tokens(self) -> int:
        """Tokens that are kept."""
        return sum(len(kept.ids) for kept in self._kept.values())

    def beginning_for(self, ids: TokenIds, adapter: str | None) -> Beginning:
        """The longest beginning of a prompt that is known, never all of it; `NO_BEGINNING` where that is short."""
        number, common = self._nearest(ids, adapter)
        tokens = min(common, len(ids) - 1)
        if number is None or tokens < LEAST_TOKENS:
            return NO_BEGINNING
        self._kept.move_to_end(number)
        self.reused_tokens += tokens
        layers = {
            layer: (keys_GPK[:, :tokens], values_GPV[:, :tokens])
            for layer, (keys_GPK, values_GPV) in self._kept[number].layers.items()
        }
        return Beginning(tokens, tuple(ids[:tokens].tolist()), adapter, layers, copied=True)

    def is_mostly_new(self, ids: TokenIds, adapter: str | None) -> bool:
        """Whether little of a prompt is known."""
        _, common = self._nearest(ids, adapter)
        return len(ids) > LEAST_TOKENS and common < NEW_SHARE * len(ids)

    def keep(self, ids: TokenIds, adapter: str | None, layers: dict[int, LayerKV]) -> None:
        """Keep what was computed for these tokens; shorter ones that they begin with go, and the oldest beyond room.

        Args:
            ids: [P].
            adapter: that computed them.
            layers: [G, P, K] and [G, P, V] of each layer; they are copied.
        """
        if not LEAST_TOKENS < len(ids) <= self.most_tokens:
            return
        for number, kept in list(self._kept.items()):
            if kept.adapter != adapter:
                continue
            common = kept.common(ids)
            if common == len(ids):
                self._kept.move_to_end(number)
                return
            if common == len(kept.ids):
                del self._kept[number]
        while self.tokens + len(ids) > self.most_tokens:
            self._kept.popitem(last=False)
        copies = {layer: (keys.clone(), values.clone()) for layer, (keys, values) in layers.items()}
        self._kept[self._number] = Kept(ids, adapter, copies)
        self._number += 1

    def _nearest(self, ids: TokenIds, adapter: str | None) -> tuple[int | None, int]:
        common = {number: kept.common(ids) for number, kept in self._kept.items() if kept.adapter == adapter}
        number = max(common, key=lambda number: common[number], default=None)
        return number, 0 if number is None else common[number]
