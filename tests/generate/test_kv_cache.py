"""Keys and values stay with their sequences wherever those lie, and memory is what it says."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from tutelage.generate.kv_cache import (
    BLOCK_TOKENS,
    INLINED_TOKENS,
    NO_BEGINNING,
    SPARE_CAPACITY,
    Beginning,
    KVCache,
    Sequence,
    capacity_for,
)

LAYERS, GROUPS, WIDTH, VALUE_WIDTH = (11, 12), 2, 3, 5


def test_a_row_holds_its_tokens_and_at_most_half_as_many_more() -> None:
    capacities = [capacity_for(tokens) for tokens in range(1, 20_000)]

    for tokens, capacity in enumerate(capacities, 1):
        assert tokens <= capacity <= max(BLOCK_TOKENS, 1.5 * (tokens + BLOCK_TOKENS - 1))
        assert capacity % BLOCK_TOKENS == 0
    assert capacities == sorted(capacities)
    assert len(set(capacities)) < 25, "few lengths, so that many sequences share a shelf"


class Oracle:
    """A cache beside a plain list of keys and values for each sequence."""

    def __init__(self, most_tokens: int, seed: int) -> None:
        self.cache, self.random = KVCache(most_tokens), random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.beginnings = [NO_BEGINNING, Beginning(7), Beginning(9), Beginning(INLINED_TOKENS + 1)]
        self.held: dict[Sequence, dict[int, tuple[torch.Tensor, torch.Tensor]]] = {}
        self.growing: set[Sequence] = set()

    def write(self, sequence: Sequence, tokens: int) -> None:
        """Tokens at the end of a sequence, as a step of generation writes them."""
        assert sequence.shelf is not None
        for layer in LAYERS:
            keys, values = self.random_layer(tokens)
            sequence.shelf.write(layer, sequence, keys, values)
            own_keys, own_values = self.held[sequence][layer]
            self.held[sequence][layer] = (torch.cat([own_keys, keys], 1), torch.cat([own_values, values], 1))
        sequence.tokens += tokens

    def add(self) -> None:
        beginning, capacity = self.random.choice(self.beginnings), self.random.choice((32, 64))
        if not self.cache.fits(beginning, capacity):
            return
        if self.cache.begin(beginning):
            beginning.layers.update({layer: self.random_layer(beginning.tokens) for layer in LAYERS})
        sequence = Sequence()
        self.cache.place([sequence], beginning, capacity)
        assert sequence.shelf is not None
        assert capacity <= sequence.shelf.capacity <= capacity * SPARE_CAPACITY
        inlined = slice(0, beginning.tokens if beginning.tokens <= INLINED_TOKENS else 0)
        self.held[sequence] = {
            layer: (beginning.layers[layer][0][:, inlined], beginning.layers[layer][1][:, inlined])
            if beginning.tokens
            else self.random_layer(0)
            for layer in LAYERS
        }
        self.write(sequence, self.random.randint(1, 20))

    def random_layer(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (torch.randn(GROUPS, tokens, width, generator=self.generator) for width in (WIDTH, VALUE_WIDTH))
        return keys, values

    def grow(self, sequence: Sequence) -> None:
        assert sequence.shelf is not None
        if sequence not in self.growing:
            sequence.shelf.start_growing(sequence)
            self.growing.add(sequence)
        self.write(sequence, min(self.random.randint(1, 6), sequence.shelf.capacity - sequence.held))

    def move(self, sequence: Sequence) -> None:
        assert sequence.shelf is not None
        capacity = sequence.shelf.capacity * 2
        if sequence not in self.growing or not self.cache.fits(sequence.beginning, capacity):
            return
        self.cache.place([sequence], sequence.beginning, capacity)
        sequence.shelf.start_growing(sequence)

    def copy(self, source: Sequence) -> None:
        shelf = source.shelf
        assert shelf is not None
        if not self.cache.fits(source.beginning, shelf.capacity):
            return
        twin = Sequence()
        self.cache.place([twin], source.beginning, shelf.capacity)
        shelf.copy(source, twin)
        self.held[twin] = dict(self.held[source])

    def release(self, sequence: Sequence) -> None:
        self.cache.release(sequence)
        self.growing.discard(sequence)
        del self.held[sequence]

    def check(self) -> None:
        shelves = {sequence.shelf for sequence in self.held}
        for shelf in shelves:
            assert shelf is not None
            assert [sequence.row for sequence in shelf.sequences] == list(range(len(shelf.sequences)))
            assert set(shelf.growing) == self.growing & set(shelf.sequences)
            assert len(shelf.sequences) <= shelf.rows_allocated
        assert set(itertools.chain(*(shelf.sequences for shelf in shelves if shelf))) == set(self.held)
        assert set(self.cache.growing) == {sequence.shelf for sequence in self.growing}
        assert self.cache.tokens_allocated <= self.cache.most_tokens
        for sequence, layers in self.held.items():
            assert sequence.shelf is not None
            for layer, expected in layers.items():
                for tensor, own in zip(sequence.shelf.layers[layer], expected, strict=True):
                    assert tensor.shape[0] == sequence.shelf.rows_allocated
                    assert torch.equal(tensor[sequence.row, :, : sequence.held], own)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most_tokens", [300, 2000])
def test_every_sequence_keeps_what_was_written_for_it(most_tokens: int, seed: int) -> None:
    oracle = Oracle(most_tokens, seed)
    acts: list[Any] = [oracle.grow, oracle.move, oracle.copy, oracle.release]

    for _ in range(250):
        if not oracle.held or oracle.random.random() < 0.35:
            oracle.add()
        else:
            act = oracle.random.choices(acts, weights=(4, 1, 1, 1.5))[0]
            act(oracle.random.choice(list(oracle.held)))
        oracle.check()

    for sequence in list(oracle.held):
        oracle.release(sequence)
        oracle.check()
    assert oracle.cache.growing == []


def test_beginnings_that_nobody_continues_make_room() -> None:
    cache, old, new, sequence = KVCache(100), Beginning(40), Beginning(50), Sequence()
    assert cache.fits(old, 32)
    assert cache.begin(old)
    assert not cache.begin(old)
    cache.place([sequence], old, 32)
    old.layers[0] = (torch.zeros(1), torch.zeros(1))
    assert not cache.fits(new, 32), "the old one is continued"
    cache.release(sequence)
    assert cache.tokens_allocated == 40, "and kept, for prompts that come later"

    assert cache.fits(new, 32)

    assert cache.tokens_allocated == 0
    assert old.layers == {}
    assert cache.begin(old), "it is computed again"


def test_a_lone_sequence_may_pass_the_bound() -> None:
    cache, sequence = KVCache(10), Sequence()

    assert not cache.fits(NO_BEGINNING, 32)
    cache.place([sequence], NO_BEGINNING, 32)

    assert cache.tokens_allocated == 32
