"""Examples as columns and back: how Examples travel between processes and lie in files.

The columns are Arrow's: the values of all Examples one after another, with offsets that say where each begins. So a
chunk that a worker made is a record batch of the store without being unpacked, and a worker needs no pyarrow. Ids take
two bytes where the vocabulary allows, and weights are runs of equal non-zero weights. Addresses do not travel: whoever
unpacks knows the row.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.types import Address, Example, Turn

if TYPE_CHECKING:
    from hashlib import _Hash

SMALL_IDS = 1 << 16
"""Vocabularies up to this size fit two bytes an id."""
_HEADER = struct.Struct("<6i")
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ExampleColumns:
    """Examples column by column. Shape legend: E = Examples, S = tokens, T = turns and W = runs of weights of them all.

    Attributes:
        part: int32 [E], which of its row's sequences each is.
        ids: uint16 or int32 [S].
        id_offsets: int32 [E + 1]; the ids of Example e are `ids[id_offsets[e] : id_offsets[e + 1]]`.
        turns: int32 [4, T]: message, prompt end, reply end, whether it ends with a stop (0 or 1).
        turn_offsets: int32 [E + 1].
        runs: int32 [2, W]: start and end of each run of equal non-zero weights.
        run_weights: float32 [W].
        run_offsets: int32 [E + 1].
    """

    part: Ints
    ids: NDArray[np.uint16] | Ints
    id_offsets: Ints
    turns: Ints
    turn_offsets: Ints
    runs: Ints
    run_weights: NDArray[np.float32]
    run_offsets: Ints

    def __len__(self) -> int:
        return len(self.part)

    @property
    def tokens(self) -> Ints:
        """Tokens of each Example, int32 [E]."""
        return np.diff(self.id_offsets)

    @property
    def trained_tokens(self) -> Ints:
        """Tokens of each Example with a non-zero weight, int32 [E]."""
        trained_before = np.zeros(len(self.run_weights) + 1, dtype=np.int64)
        np.cumsum(self.runs[1] - self.runs[0], out=trained_before[1:])
        return np.diff(trained_before[self.run_offsets]).astype(np.int32)

    def example(self, index: int, address: Address) -> Example:
        """Example `index` of the columns, with arrays of its own."""
        first, last = int(self.id_offsets[index]), int(self.id_offsets[index + 1])
        weights = np.zeros(last - first, dtype=np.float32)
        run_slice = slice(int(self.run_offsets[index]), int(self.run_offsets[index + 1]))
        starts, ends = self.runs[:, run_slice].tolist()
        for start, end, weight in zip(starts, ends, self.run_weights[run_slice].tolist(), strict=True):
            weights[start:end] = weight
        turn_slice = slice(int(self.turn_offsets[index]), int(self.turn_offsets[index + 1]))
        turns = tuple(
            Turn(message, prompt_end, reply_end, bool(stops))
            for message, prompt_end, reply_end, stops in zip(*self.turns[:, turn_slice].tolist(), strict=True)
        )
        return Example(address, int(self.part[index]), self.ids[first:last].astype(np.int32), weights, turns)

    def add_to_hash(self, digest: _Hash) -> None:
        """Add every Example to a hash that depends on the Examples alone, not on the chunks they came in.

        Of each, little-endian: six int32 (tokens, turns, runs, part, bytes of one id, trained tokens); four int32 for
        each turn; two int32 (start, end) for each run; a float32 weight for each run; then the ids.
        """
        turns, runs = self.turns.T.tobytes(), self.runs.T.tobytes()
        run_weights, ids, id_bytes = self.run_weights.tobytes(), self.ids.tobytes(), self.ids.itemsize
        offsets = [array.tolist() for array in (self.id_offsets, self.turn_offsets, self.run_offsets)]
        counts = zip(self.part.tolist(), self.trained_tokens.tolist(), strict=True)
        pieces: list[bytes] = []
        for index, (part, trained) in enumerate(counts):
            (id_start, id_end), (turn_start, turn_end), (run_start, run_end) = (
                (array[index], array[index + 1]) for array in offsets
            )
            counted = id_end - id_start, turn_end - turn_start, run_end - run_start
            pieces += (
                _HEADER.pack(*counted, part, id_bytes, trained),
                turns[16 * turn_start : 16 * turn_end],
                runs[8 * run_start : 8 * run_end],
                run_weights[4 * run_start : 4 * run_end],
                ids[id_bytes * id_start : id_bytes * id_end],
            )
        digest.update(b"".join(pieces))


def columns_of(examples: Sequence[Example], *, vocabulary_size: int) -> ExampleColumns:
    """The columns of Examples; `vocabulary_size` decides between two and four bytes an id."""
    id_type = np.dtype("<u2") if vocabulary_size <= SMALL_IDS else np.dtype("<i4")
    lengths = [len(example.ids) for example in examples]
    id_offsets = _offsets(lengths)
    ids = np.empty(int(id_offsets[-1]), dtype=id_type)
    weights = np.empty(len(ids), dtype=np.float32)
    if examples:
        np.concatenate([example.ids for example in examples], out=ids, casting="unsafe")
        np.concatenate([example.weights for example in examples], out=weights)
    starts, ends, run_owners = _runs(weights, id_offsets)
    first_tokens = id_offsets[run_owners]
    turns = [
        number
        for example in examples
        for turn in example.turns
        for number in (turn.message, turn.prompt_end, turn.reply_end, turn.ends_with_stop)
    ]
    return ExampleColumns(
        part=np.array([example.part for example in examples], dtype=np.int32),
        ids=ids,
        id_offsets=id_offsets,
        turns=np.ascontiguousarray(np.array(turns, dtype=np.int32).reshape(-1, 4).T),
        turn_offsets=_offsets([len(example.turns) for example in examples]),
        runs=np.stack((starts - first_tokens, ends - first_tokens)).astype(np.int32),
        run_weights=weights[starts],
        run_offsets=_offsets(np.bincount(run_owners, minlength=len(examples))),
    )


def _runs(weights: NDArray[np.float32], id_offsets: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
    """Start and end of each run of equal non-zero weights, and its Example; none crosses from one into the next."""
    is_start = np.ones(len(weights), dtype=bool)
    np.not_equal(weights[1:], weights[:-1], out=is_start[1:])
    is_start[id_offsets[:-1][np.diff(id_offsets) > 0]] = True
    starts = np.flatnonzero(is_start)
    ends = np.append(starts[1:], len(weights))
    weighted = weights[starts] != 0
    starts, ends = starts[weighted], ends[weighted]
    return starts, ends, np.searchsorted(id_offsets, starts, side="right") - 1


def _offsets(lengths: Sequence[int] | NDArray[np.integer[Any]]) -> Ints:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    assert offsets[-1] < 1 << 31, "the Examples of one chunk hold more than 2 billion tokens"
    return offsets.astype(np.int32)
