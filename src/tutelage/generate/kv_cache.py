"""Keys and values of the tokens so far, in memory that decoding attention reads as it lies.

Sequences of like length lie in one shelf: a tensor a layer with a row for each sequence, without gaps, so that one
batched product meets all of them. What many sequences begin with is kept once (`Beginning`).

Shape legend: S = rows of a shelf, G = key/value heads, C = tokens a row can hold, K = head width, V = that of values,
T = tokens, P = tokens of a beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

BLOCK_TOKENS = 32
"""Rows of a shelf hold multiples of this."""

INLINED_TOKENS = 64
"""A beginning of so many tokens or fewer is computed once, and copied into the row of each sequence that continues it:
products over it alone would cost more than they spare. Measured in docs/log.md, "Decoding with AMX"."""

SPARE_CAPACITY = 1.5
"""A sequence may lie in rows of so many times the capacity it needs, where that spares products of their own."""

GROWTH = 1.25
"""A shelf without a free row gets so many times the rows where memory allows it: each growth copies it."""

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
        tokens: how many, virtual ones included.
        ids: which, behind the virtual ones.
        adapter: the one that they are computed with, as `requests.Request` has it.
        layers: their keys [G, P, K] and values [G, P, V] by layer, filled as they are computed.
        copied: it is known and of one sequence alone, whose row takes it over; no cache holds it.
    """

    tokens: int
    ids: tuple[int, ...] = ()
    adapter: str | None = None
    layers: dict[int, LayerKV] = field(default_factory=dict)
    copied: bool = False

    @property
    def virtual_tokens(self) -> int:
        """Those of prompt tuning, which stand in front of the ids."""
        return self.tokens - len(self.ids)

    @property
    def is_inlined(self) -> bool:
        """Whether the rows of sequences hold it, too."""
        return self.copied or self.tokens <= INLINED_TOKENS


NO_BEGINNING = Beginning(0)


@dataclass(eq=False)
class Sequence:
    """A reply under way.

    Attributes:
        shelf: has its keys and values.
        row: where they lie in it.
        tokens: how many of its own are computed, behind those of its beginning.
        beginning: what it continues.
    """

    shelf: Shelf | None = None
    row: int = 0
    tokens: int = 0
    beginning: Beginning = NO_BEGINNING

    @property
    def inlined_tokens(self) -> int:
        """Tokens of its beginning that its row holds in front of its own."""
        return self.beginning.tokens if self.beginning.is_inlined else 0

    @property
    def held(self) -> int:
        """Tokens that its row holds."""
        return self.inlined_tokens + self.tokens


class Shelf:
    """Rows of up to `capacity` tokens that continue one beginning, or hold theirs themselves (`Beginning.is_inlined`).

    The first rows are of sequences that get a token in every step, so that one product meets them all; behind them lie
    those whose prompt is still being computed.
    """

    def __init__(self, beginning: Beginning, capacity: int) -> None:
        self.beginning, self.capacity = beginning, capacity
        self.sequences: list[Sequence] = []
        self.layers: dict[int, LayerKV] = {}
        self._rows = self._growing = 0

    @property
    def growing(self) -> list[Sequence]:
        """The sequences that get a token in every step, in the order of their rows."""
        return self.sequences[: self._growing]

    @property
    def rows_allocated(self) -> int:
        """Rows that its memory can hold."""
        return self._rows

    def add(self, sequence: Sequence) -> None:
        """Give a sequence the next row, which must be there; what it holds on another shelf moves here."""
        row, source, tokens = len(self.sequences), sequence.shelf, sequence.held
        assert row < self._rows, "no row is free"
        if source is not None:
            for layer, (keys_SGCK, values_SGCV) in source.layers.items():
                own_keys_SGCK, own_values_SGCV = self.layer(layer, keys_SGCK, values_SGCV)
                own_keys_SGCK[row, :, :tokens] = keys_SGCK[sequence.row, :, :tokens]
                own_values_SGCV[row, :, :tokens] = values_SGCV[sequence.row, :, :tokens]
            source.remove(sequence)
        self.sequences.append(sequence)
        sequence.shelf, sequence.row = self, row

    def held_by(self, sequence: Sequence) -> dict[int, LayerKV]:
        """Keys [G, T, K] and values [G, T, V] of what a row holds, by layer, as they lie."""
        return {
            layer: (keys_SGCK[sequence.row, :, : sequence.held], values_SGCV[sequence.row, :, : sequence.held])
            for layer, (keys_SGCK, values_SGCV) in self.layers.items()
        }

    def start_growing(self, sequence: Sequence) -> None:
        """From now on the sequence gets a token in every step: it changes places with the first that does not."""
        other, place = self.sequences[self._growing], sequence.row
        if other is not sequence:
            for tensor in self._tensors():
                held_by_other = tensor[other.row, :, : other.held].clone()
                tensor[other.row, :, : sequence.held] = tensor[place, :, : sequence.held]
                tensor[place, :, : other.held] = held_by_other
            self.sequences[place], self.sequences[other.row] = other, sequence
            sequence.row, other.row = other.row, place
        self._growing += 1

    def copy(self, source: Sequence, target: Sequence) -> None:
        """Let `target` hold what `source` holds, both of them sequences of this shelf."""
        target.tokens = source.tokens
        for tensor in self._tensors():
            tensor[target.row, :, : source.held] = tensor[source.row, :, : source.held]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence away; the last of its kind takes its place, and the very last row becomes free."""
        free = sequence.row
        if free < self._growing:
            self._growing -= 1
            free = self._fill(free, self._growing)
        self._fill(free, len(self.sequences) - 1)
        self.sequences.pop()
        sequence.shelf = None
        if len(self.sequences) * 2 < self._rows:
            self.resize(len(self.sequences))

    def write(self, layer: int, sequence: Sequence, keys_GTK: torch.Tensor, values_GTV: torch.Tensor) -> None:
        """Put the keys and values of T tokens of a sequence behind those that it holds, its beginning before them."""
        keys_SGCK, values_SGCV = self.layer(layer, keys_GTK[None], values_GTV[None])
        row, start, end = sequence.row, sequence.held, sequence.held + keys_GTK.shape[1]
        if sequence.inlined_tokens and not sequence.tokens:
            keys_SGCK[row, :, :start], values_SGCV[row, :, :start] = sequence.beginning.layers[layer]
        keys_SGCK[row, :, start:end] = keys_GTK
        values_SGCV[row, :, start:end] = values_GTV

    def layer(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> LayerKV:
        """The tensors of a layer, made in the shapes [.., G, .., K] of these the first time."""
        if layer not in self.layers:
            self.layers[layer] = (self._empty(keys), self._empty(values))
        return self.layers[layer]

    def resize(self, rows: int) -> None:
        """Have memory for so many rows, at least those that are taken."""
        if rows == self._rows:
            return
        kept, self._rows = len(self.sequences), rows
        if not rows:
            self.layers.clear()
        for layer, tensors in self.layers.items():
            resized = [self._empty(tensor) for tensor in tensors]
            for old, new in zip(tensors, resized, strict=True):
                new[:kept] = old[:kept]
            self.layers[layer] = (resized[0], resized[1])

    def _fill(self, free: int, source: int) -> int:
        """Move what lies in row `source` to the free row; returns the row that is free then."""
        if free != source:
            moved = self.sequences[source]
            for tensor in self._tensors():
                tensor[free, :, : moved.held] = tensor[source, :, : moved.held]
            self.sequences[free] = moved
            moved.row = free
        return source

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for layer in self.layers.values() for tensor in layer]

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros, not what lay there before: weights of 0 times a NaN would be NaN.
        return like.new_zeros(self._rows, like.shape[1], self.capacity, like.shape[3])


class KVCache:
    """All shelves and beginnings, with a bound on the tokens that they can hold together.

    Args:
        most_tokens: the bound; one sequence may pass it alone, as nothing could be done otherwise.
    """

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._shelves: dict[tuple[Beginning, int], Shelf] = {}
        self._beginnings: set[Beginning] = set()

    @property
    def growing(self) -> list[Shelf]:
        """The shelves of sequences that get a token in every step."""
        return [shelf for shelf in self._shelves.values() if shelf.growing]

    @property
    def tokens_allocated(self) -> int:
        """Tokens that all memory can hold."""
        rows = sum(shelf.rows_allocated * shelf.capacity for shelf in self._shelves.values())
        return rows + self._beginning_tokens()

    def fits(self, beginning: Beginning, tokens: int) -> bool:
        """Whether rows of so many tokens more, behind a beginning, stay within the bound.

        Where they would not, other beginnings that no sequence continues are forgotten.
        """
        if self._fits(beginning, tokens):
            return True
        continued = {sequence.beginning for shelf in self._shelves.values() for sequence in shelf.sequences}
        for idle in self._beginnings - continued - {beginning}:
            idle.layers.clear()
            self._beginnings.remove(idle)
        return self._fits(beginning, tokens)

    def begin(self, beginning: Beginning) -> bool:
        """Have room for the tokens of a beginning; returns whether they are to be computed."""
        if not beginning.tokens or beginning.copied or beginning in self._beginnings:
            return False
        self._free_spare_rows_for(beginning.tokens)
        self._beginnings.add(beginning)
        return True

    def place(self, sequences: list[Sequence], beginning: Beginning, capacity: int) -> None:
        """Give each sequence a row of that capacity or somewhat more; what it holds elsewhere moves there."""
        shelf = self._shelf(NO_BEGINNING if beginning.is_inlined else beginning, capacity, len(sequences))
        for sequence in sequences:
            sequence.beginning = beginning
            if len(shelf.sequences) == shelf.rows_allocated:
                wanted = max(1, round(shelf.rows_allocated * (GROWTH - 1)))
                self._free_spare_rows_for(wanted * shelf.capacity)
                spare_rows = (self.most_tokens - self.tokens_allocated) // shelf.capacity
                shelf.resize(shelf.rows_allocated + max(1, min(wanted, spare_rows)))
            shelf.add(sequence)
        self._drop_empty_shelves()

    def _shelf(self, beginning: Beginning, capacity: int, rows: int) -> Shelf:
        """The smallest shelf that will do, or a new one where none is near enough in size, or memory is short."""
        for shelf in sorted(self._shelves.values(), key=lambda shelf: shelf.capacity):
            if shelf.beginning is not beginning or not capacity < shelf.capacity <= capacity * SPARE_CAPACITY:
                continue
            if (beginning, capacity) not in self._shelves and self._fits(beginning, rows * shelf.capacity):
                return shelf
        return self._shelves.setdefault((beginning, capacity), Shelf(beginning, capacity))

    def release(self, sequence: Sequence) -> None:
        """Give back the room of a sequence."""
        assert sequence.shelf is not None
        sequence.shelf.remove(sequence)
        sequence.tokens = 0
        self._drop_empty_shelves()

    def _fits(self, beginning: Beginning, tokens: int) -> bool:
        taken = sum(len(shelf.sequences) * shelf.capacity for shelf in self._shelves.values())
        is_held = beginning.copied or beginning in self._beginnings
        new_beginning = 0 if is_held else beginning.tokens
        return taken + self._beginning_tokens() + new_beginning + tokens <= self.most_tokens

    def _beginning_tokens(self) -> int:
        return sum(beginning.tokens for beginning in self._beginnings)

    def _free_spare_rows_for(self, tokens: int) -> None:
        if self.tokens_allocated + tokens > self.most_tokens:
            for shelf in self._shelves.values():
                shelf.resize(len(shelf.sequences))

    def _drop_empty_shelves(self) -> None:
        self._shelves = {key: shelf for key, shelf in self._shelves.items() if shelf.sequences}
