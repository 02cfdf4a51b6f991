"""Keys and values of the tokens so far, in memory that decoding attention reads as it lies.

Sequences of like length lie in one shelf: a tensor a layer with a row for each sequence, without gaps, so that one
batched product meets all of them. What many sequences begin with is kept once (`Beginning`).

Shape legend: S = rows of a shelf, G = key/value heads, C = tokens a row can hold, K = head width, V = that of values,
T = tokens, P = tokens of a beginning.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

BLOCK_TOKENS = 32
"""Rows of a shelf hold multiples of this."""

GROWTH = 1.25
"""A shelf without a free row gets so many times the rows: each growth copies it, layer by layer."""

LayerKV = tuple[torch.Tensor, torch.Tensor]
"""Keys [.., G, T, K] and values [.., G, T, V] of one layer."""


def capacity_for(tokens: int) -> int:
    """The capacity of the shelf for so many tokens: 1, 2, 3, 4, 6, 8, 12, 16, 24, ... blocks."""
    blocks = -(-tokens // BLOCK_TOKENS)
    power = 1 << max(0, blocks - 1).bit_length()
    return BLOCK_TOKENS * (power * 3 // 4 if power >= 4 and blocks <= power * 3 // 4 else power)


@dataclass(eq=False, slots=True)
class Beginning:
    """Tokens that several prompts begin with.

    Attributes:
        tokens: how many.
        ids: which.
        layers: their keys [G, P, K] and values [G, P, V] by layer, filled as they are computed.
    """

    tokens: int
    ids: tuple[int, ...] = ()
    layers: dict[int, LayerKV] = field(default_factory=dict)


NO_BEGINNING = Beginning(0)


@dataclass(eq=False)
class Sequence:
    """A reply under way: `tokens` of it lie in row `row` of `shelf`, behind those of the shelf's beginning."""

    shelf: Shelf | None = None
    row: int = 0
    tokens: int = 0


class Shelf:
    """Rows of up to `capacity` tokens that continue one beginning."""

    def __init__(self, beginning: Beginning, capacity: int) -> None:
        self.beginning, self.capacity = beginning, capacity
        self.sequences: list[Sequence] = []
        self.layers: dict[int, LayerKV] = {}
        self._rows = 0

    def reserve(self, rows: int) -> None:
        """Have memory for so many rows more."""
        if len(self.sequences) + rows > self._rows:
            self._resize(max(len(self.sequences) + rows, round(self._rows * GROWTH)))

    def add(self, sequence: Sequence) -> None:
        """Give a sequence the next row; what it holds on another shelf moves here."""
        self.reserve(1)
        row, source, tokens = len(self.sequences), sequence.shelf, sequence.tokens
        if source is not None:
            for layer, (keys_SGCK, values_SGCV) in source.layers.items():
                own_keys_SGCK, own_values_SGCV = self.layer(layer, keys_SGCK, values_SGCV)
                own_keys_SGCK[row, :, :tokens] = keys_SGCK[sequence.row, :, :tokens]
                own_values_SGCV[row, :, :tokens] = values_SGCV[sequence.row, :, :tokens]
            source.remove(sequence)
        self.sequences.append(sequence)
        sequence.shelf, sequence.row = self, row

    def add_copy(self, source: Sequence, copy: Sequence) -> None:
        """Give `copy` a row that holds what `source`, a sequence of this shelf, holds."""
        self.add(copy)
        copy.tokens = source.tokens
        for keys_SGCK, values_SGCV in self.layers.values():
            for tensor in (keys_SGCK, values_SGCV):
                tensor[copy.row, :, : source.tokens] = tensor[source.row, :, : source.tokens]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence away; the last row takes its place."""
        last = self.sequences.pop()
        if last is not sequence:
            for keys_SGCK, values_SGCV in self.layers.values():
                for tensor in (keys_SGCK, values_SGCV):
                    tensor[sequence.row, :, : last.tokens] = tensor[last.row, :, : last.tokens]
            self.sequences[sequence.row] = last
            last.row = sequence.row
        sequence.shelf = None
        if len(self.sequences) * 2 < self._rows:
            self._resize(len(self.sequences))

    def write(self, layer: int, row: int, start: int, keys_GTK: torch.Tensor, values_GTV: torch.Tensor) -> None:
        """Put the keys and values of T tokens of one sequence behind its first `start`."""
        keys_SGCK, values_SGCV = self.layer(layer, keys_GTK[None], values_GTV[None])
        end = start + keys_GTK.shape[1]
        keys_SGCK[row, :, start:end] = keys_GTK
        values_SGCV[row, :, start:end] = values_GTV

    @property
    def rows_allocated(self) -> int:
        """Rows that its memory can hold."""
        return self._rows

    def layer(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> LayerKV:
        """The tensors of a layer, made in the shapes [.., G, .., K] of these the first time."""
        if layer not in self.layers:
            self.layers[layer] = (self._empty(keys), self._empty(values))
        return self.layers[layer]

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros, not what lay there before: weights of 0 times a NaN would be NaN.
        return like.new_zeros(self._rows, like.shape[1], self.capacity, like.shape[3])

    def _resize(self, rows: int) -> None:
        kept, self._rows = len(self.sequences), rows
        if not rows:
            self.layers.clear()
        for layer, tensors in self.layers.items():
            resized = [self._empty(tensor) for tensor in tensors]
            for old, new in zip(tensors, resized, strict=True):
                new[:kept] = old[:kept]
            self.layers[layer] = (resized[0], resized[1])


class KVCache:
    """All shelves, with a bound on the tokens that they can hold together.

    Sequences that get a token in every step lie apart from those whose prompt is still being computed, so that the
    rows of a shelf are all of one kind.

    Args:
        most_tokens: the bound; one sequence may pass it alone, as nothing could be done otherwise.
    """

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._shelves: dict[_Key, Shelf] = {}

    @property
    def growing(self) -> list[Shelf]:
        """The shelves of sequences that get a token in every step."""
        return [shelf for key, shelf in self._shelves.items() if key.grows]

    @property
    def tokens_allocated(self) -> int:
        """Tokens that the memory of all shelves can hold."""
        return sum(shelf.rows_allocated * shelf.capacity for shelf in self._shelves.values())

    def fits(self, tokens: int, promised: int = 0) -> bool:
        """Whether room for so many tokens more, beside what is promised already, stays within the bound."""
        return self.tokens_allocated + promised + tokens <= self.most_tokens

    def place(self, sequences: Collection[Sequence], beginning: Beginning, capacity: int, *, grows: bool) -> None:
        """Give sequences a row each of one shelf; what they hold elsewhere moves there."""
        key = _Key(beginning, capacity, grows)
        shelf = self._shelves.setdefault(key, Shelf(beginning, capacity))
        shelf.reserve(len(sequences))
        for sequence in sequences:
            shelf.add(sequence)
        self._drop_empty_shelves()

    def release(self, sequence: Sequence) -> None:
        """Give back the room of a sequence."""
        assert sequence.shelf is not None
        sequence.shelf.remove(sequence)
        sequence.tokens = 0
        self._drop_empty_shelves()

    def _drop_empty_shelves(self) -> None:
        self._shelves = {key: shelf for key, shelf in self._shelves.items() if shelf.sequences}


class _Key(NamedTuple):
    beginning: Beginning
    capacity: int
    grows: bool
