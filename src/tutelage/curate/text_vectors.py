"""Vectors of texts without a model: words and pairs of words, hashed, and the table that Arrow holds them in.

Each distinct word and pair of a text adds +1 or -1 at one of 256 places, both by its hash, so that the cosine of two
vectors is near that of the sets: sizes of what is shared over the root of both sizes. The vectors are whole numbers
before they are scaled, so they are the same for any size of chunks. Source: Weinberger et al. 2009, section 2.

Shape legend: R = texts, D = 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.shingles import distinct
from tutelage.curate.texts import prompt_text, reply_text, words
from tutelage.curate.word_hashes import hashed_words, mixed, ragged_run_hashes
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

PLACES = 256
_PLACE_SHIFT, _SIGN_SHIFT = np.uint64(56), np.uint64(17)
WIDTHS = (1, 2)
"""Words of a run: single words, and pairs."""

Vectors = NDArray[np.float32]


def hashed_vectors(texts: Sequence[str]) -> Vectors:
    """float32 [R, D] of length 1; zeros for a text without words."""
    totals = np.zeros((len(texts), PLACES), dtype=np.float64)
    hashed = hashed_words([words(text) for text in texts])
    for width in WIDTHS:
        runs = distinct(ragged_run_hashes(hashed, width))
        numbers = mixed(runs.values)
        rows = np.repeat(np.arange(len(texts)), runs.lengths)
        places = rows * PLACES + (numbers >> _PLACE_SHIFT).astype(np.int64)
        signs = 1.0 - 2.0 * ((numbers >> _SIGN_SHIFT) & np.uint64(1))
        totals += np.bincount(places, weights=signs, minlength=totals.size)[: totals.size].reshape(totals.shape)
    return unit(totals).astype(np.float32)


def compared_text(conversation: Conversation) -> str:
    """What rows are compared by where whole rows are: what the users say and what is learned, no system turns."""
    return f"{prompt_text(conversation)}\n{reply_text(conversation)}"


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each vector scaled to length 1; zeros stay."""
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def centered(vectors: Vectors) -> Vectors:
    """Vectors without what all have in common: their mean is taken off, and they are scaled to length 1 again.

    Common words are a large part of every vector, and say nothing of what a row is about. Source: Mu and Viswanath
    2018, section 2.
    """
    if not len(vectors):
        return vectors
    moved = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    moved[~vectors.any(axis=1)] = 0
    return unit(moved).astype(np.float32)


def vector_column(vectors: Vectors) -> pa.Array:
    """Vectors as a column of Arrow."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def vectors_of(column: pa.ChunkedArray) -> Vectors:
    """float32 [N, D] of such a column."""
    chunks = [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.zeros((0, PLACES), dtype=np.float32)
