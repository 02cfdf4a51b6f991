"""Shingles of all rows as they lie in the files of a stage, with and without those of templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.shingles import without
from tutelage.curate.word_hashes import Ragged, UInt64s, offsets_of
from tutelage.system.heap import release_pages

if TYPE_CHECKING:
    import pyarrow as pa


def shingle_column(sets: Ragged) -> pa.LargeListArray:
    """The shingles of rows as a column of features."""
    import pyarrow as pa

    return pa.LargeListArray.from_arrays(pa.array(sets.offsets), pa.array(sets.values))


def ragged_of(chunk: pa.LargeListArray) -> Ragged:
    """The shingles of a chunk of that column, memory-mapped as it is."""
    offsets = chunk.offsets.to_numpy()
    return Ragged(chunk.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])


def chosen_rows(chunk: Ragged, chosen: NDArray[np.bool_]) -> Ragged:
    """Some rows of a chunk, in their order.

    Args:
        chunk: R rows.
        chosen: bool [R].
    """
    return Ragged(chunk.values[np.repeat(chosen, chunk.lengths)], offsets_of(chunk.lengths[chosen]))


def without_templates(
    chunks: Sequence[Ragged], sources: NDArray[np.int32], templates: Mapping[int, UInt64s], file: IO[bytes]
) -> list[Ragged]:
    """The chunks without the template shingles of each row's source, memory-mapped.

    Args:
        chunks: the shingles of all rows, in order.
        sources: int32 [N], which source each row is of.
        templates: those of a source.
        file: new and empty, open for as long as the result is used.
    """
    reduced, start, lengths = [], 0, []
    for chunk in chunks:
        chunk_without = without(chunk, sources[start : start + len(chunk)], templates)
        start += len(chunk)
        release_pages(chunk.values)
        chunk_without.values.tofile(file)
        reduced.append(chunk_without.offsets)
        lengths.append(len(chunk_without.values))
    file.flush()
    values = np.memmap(file, dtype=np.uint64, mode="r") if sum(lengths) else np.zeros(0, dtype=np.uint64)
    pieces = np.split(values.view(np.ndarray), np.cumsum(lengths)[:-1])
    return [Ragged(piece, offsets) for piece, offsets in zip(pieces, reduced, strict=True)]
