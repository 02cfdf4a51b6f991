"""How Examples lie in an Arrow file: its columns, and a chunk as a record batch and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.render.example_codec import ExampleColumns
from tutelage.types import Address


class StoredChunk(NamedTuple):
    """One record batch of the file, nothing of it copied; the last three are Arrow arrays."""

    columns: ExampleColumns
    files: Any
    numbers: Any
    units: Any


def store_schema(*, small_ids: bool) -> Any:
    """The Arrow schema of `examples.arrow`: a row for each Example.

    Args:
        small_ids: an id takes two bytes, else four.
    """
    import pyarrow as pa

    turn = [
        ("message", pa.int32()),
        ("prompt_end", pa.int32()),
        ("reply_end", pa.int32()),
        ("ends_with_stop", pa.bool_()),
    ]
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.uint16() if small_ids else pa.int32())),
            ("weights", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("weight", pa.float32())]))),
            ("turns", pa.list_(pa.struct(turn))),
            ("file", pa.string()),
            ("number", pa.int64()),
            ("unit", pa.string()),
            ("part", pa.int32()),
            ("row", pa.int32()),
            ("file_number", pa.int32()),
            ("system_prompt", pa.int32()),
            ("tokens", pa.int32()),
            ("trained_tokens", pa.int32()),
        ]
    )


def record_batch(
    schema: Any,
    columns: ExampleColumns,
    addresses: Sequence[Address],
    file_numbers: Sequence[int],
    rows: Sequence[int],
    system_ids: Sequence[int],
) -> Any:
    """The columns as Arrow's, which are views of them, with those that the row of each Example decides."""
    import pyarrow as pa

    def lists(name: str, offsets: NDArray[np.int32], *members: NDArray[Any]) -> Any:
        value_type = schema.field(name).type.value_type
        values = (
            pa.StructArray.from_arrays([pa.array(member) for member in members], fields=list(value_type))
            if pa.types.is_struct(value_type)
            else pa.array(*members)
        )
        return pa.ListArray.from_arrays(pa.array(offsets), values, type=schema.field(name).type)

    message, prompt_end, reply_end, ends_with_stop = columns.turns
    arrays = [
        lists("input_ids", columns.id_offsets, columns.ids),
        lists("weights", columns.run_offsets, *columns.runs, columns.run_weights),
        lists("turns", columns.turn_offsets, message, prompt_end, reply_end, ends_with_stop != 0),
        pa.array([address.file for address in addresses], pa.string()),
        pa.array([address.number for address in addresses], pa.int64()),
        pa.array([address.unit for address in addresses], pa.string()),
        pa.array(columns.part),
        *(pa.array(numbers, pa.int32()) for numbers in (rows, file_numbers, system_ids)),
        pa.array(columns.tokens),
        pa.array(columns.trained_tokens),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def stored_chunk(batch: Any) -> StoredChunk:
    """The columns of a record batch, which are views of it."""
    ids, weights, turns = (batch.column(name) for name in ("input_ids", "weights", "turns"))
    start, end, weight = (weights.values.field(member).to_numpy() for member in range(3))
    turn_members = [turns.values.field(member).to_numpy(zero_copy_only=False) for member in range(4)]
    columns = ExampleColumns(
        part=batch.column("part").to_numpy(),
        ids=ids.values.to_numpy(),
        id_offsets=ids.offsets.to_numpy(),
        turns=np.stack(turn_members).astype(np.int32),
        turn_offsets=turns.offsets.to_numpy(),
        runs=np.stack((start, end)),
        run_weights=weight,
        run_offsets=weights.offsets.to_numpy(),
    )
    return StoredChunk(columns, batch.column("file"), batch.column("number"), batch.column("unit"))
