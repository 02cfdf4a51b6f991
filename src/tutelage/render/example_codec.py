"""An Example as a few bytes and back: how Examples travel between processes and lie in files.

Layout, all little-endian: six int32 (tokens, turns, runs, part, bytes of one id, trained tokens); four int32 for each
turn (message, prompt end, reply end, ends with a stop); two int32 (start, end) for each run of equal non-zero weights;
a float32 weight for each run; then the ids. The address does not travel: whoever unpacks knows the row.
"""

from __future__ import annotations

import numpy as np

from tutelage.types import Address, Example, Turn

_HEADER_INTS = 6
_INT = np.dtype("<i4")
_FLOAT = np.dtype("<f4")
SMALL_IDS = 1 << 16
"""Vocabularies up to this size fit two bytes an id."""


def example_to_bytes(example: Example, *, vocabulary_size: int) -> bytes:
    """The bytes of one Example; `vocabulary_size` decides between two and four bytes an id."""
    weights = example.weights
    edges = np.flatnonzero(weights[1:] != weights[:-1]) + 1
    starts = np.concatenate((np.zeros(1, dtype=np.int64), edges))
    ends = np.concatenate((edges, np.asarray([len(weights)], dtype=np.int64)))
    values = weights[starts]
    weighted = values != 0
    starts, ends, values = starts[weighted], ends[weighted], values[weighted]
    id_type = _id_type(2 if vocabulary_size <= SMALL_IDS else 4)
    numbers = [len(example.ids), len(example.turns), len(values), example.part, id_type.itemsize]
    numbers.append(int((ends - starts).sum()))
    for turn in example.turns:
        numbers += (turn.message, turn.prompt_end, turn.reply_end, int(turn.ends_with_stop))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        numbers += (start, end)
    return b"".join(
        (
            np.asarray(numbers, dtype=_INT).tobytes(),
            values.astype(_FLOAT).tobytes(),
            example.ids.astype(id_type).tobytes(),
        )
    )


def example_from_bytes(data: bytes, address: Address) -> Example:
    """The Example of these bytes, with arrays of its own."""
    tokens, turn_count, run_count, part_index, id_bytes, _ = np.frombuffer(
        data, dtype=_INT, count=_HEADER_INTS
    ).tolist()
    offset = _HEADER_INTS * _INT.itemsize
    numbers = np.frombuffer(data, dtype=_INT, count=4 * turn_count + 2 * run_count, offset=offset).tolist()
    offset += len(numbers) * _INT.itemsize
    values = np.frombuffer(data, dtype=_FLOAT, count=run_count, offset=offset).tolist()
    offset += run_count * _FLOAT.itemsize
    turns = tuple(
        Turn(message, prompt_end, reply_end, bool(stops))
        for message, prompt_end, reply_end, stops in zip(*[iter(numbers[: 4 * turn_count])] * 4, strict=True)
    )
    weights = np.zeros(tokens, dtype=np.float32)
    runs = iter(numbers[4 * turn_count :])
    for start, end, value in zip(runs, runs, values, strict=True):
        weights[start:end] = value
    ids = np.frombuffer(data, dtype=_id_type(id_bytes), count=tokens, offset=offset).astype(np.int32)
    return Example(address, part_index, ids, weights, turns)


def _id_type(id_bytes: int) -> np.dtype[np.uint16] | np.dtype[np.int32]:
    return np.dtype("<u2") if id_bytes == 2 else np.dtype("<i4")
