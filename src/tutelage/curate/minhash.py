"""Which rows may be near-duplicates: MinHash signatures, and pairs of rows that agree on a whole band of theirs.

120 permutations in 20 bands of 6: rows of Jaccard similarity s agree on a band with probability 1 - (1 - s^6)^20, which
is 0.998 at s = 0.8. Sources: Broder 1997, section 3 (MinHash); Leskovec et al., Mining of Massive Datasets, section
3.4 (bands).

Signatures are computed here: rensa's 0.5.0 are the same on every run, too, but it hands them over as lists of Python's
numbers, which takes longer than NumPy needs for all of it (10,000 rows of 100 shingles: 0.39 s against 0.15 s).

Shape legend: N = rows, P = pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.word_hashes import Offsets, Ragged, UInt64s, mixed
from tutelage.system.heap import release_pages

BANDS, BAND_ROWS = 20, 6
PERMUTATIONS = BANDS * BAND_ROWS
ROWS_AT_ONCE = 400
"""Rows whose shingles are permuted together: enough for NumPy's overhead, few enough for the processor's cache."""
ALL_PAIRS_UP_TO = 16
"""Rows that agree on a band and are all paired with each other; of more, each is paired with the first and with those
before it (`NEIGHBORS`), so that pairs grow with the rows and not with their square."""
NEIGHBORS = 4
ESTIMATE_MARGIN = 0.2
"""A pair is verified if its signatures agree on at least the threshold less this: 5 standard deviations of the
estimate, sqrt(0.8 * 0.2 / 120) = 0.037."""

Signatures = NDArray[np.uint32]
Pairs = NDArray[np.int64]


def signatures(chunks: Iterable[Ragged], out: Signatures, *, seed: int) -> None:
    """The signature of each row, written into `out`, uint32 [N, 120]. A row without shingles has the largest number.

    Permutation p of the 32-bit numbers is x -> a_p x + b_p mod 2^32, a_p odd. Source: Dietzfelbinger et al. 1997, on
    hashing by multiplication; the share of pairs that agree on a band is held against the formula in a test.

    Args:
        chunks: the shingles of all rows, in order.
        out: may be memory-mapped.
        seed: of the permutations.
    """
    random = mixed(mixed(np.arange(2 * PERMUTATIONS, dtype=np.uint64)) + np.uint64(seed & (2**64 - 1)))
    factors, shifts = (random >> np.uint64(32)).astype(np.uint32).reshape(2, PERMUTATIONS)
    factors |= np.uint32(1)
    first_row = 0
    for chunk in chunks:
        numbers = (mixed(chunk.values) >> np.uint64(32)).astype(np.uint32)
        for start in range(0, len(chunk), ROWS_AT_ONCE):
            offsets = chunk.offsets[start : start + ROWS_AT_ONCE + 1]
            least = _least(numbers[offsets[0] : offsets[-1]], offsets - offsets[0], factors, shifts)
            out[first_row + start : first_row + start + len(offsets) - 1] = least
        first_row += len(chunk)
        release_pages(chunk.values)


def candidate_pairs(signed: Signatures, rows: NDArray[np.int64], threshold: float) -> tuple[Pairs, bool]:
    """Pairs of rows that agree on a band and whose signatures let the threshold be reached.

    Args:
        signed: uint32 [N, 120].
        rows: int64, those that are compared, in the order in which they are preferred. Rows without shingles are to be
            left out, as their signatures agree.
        threshold: of the Jaccard similarity.

    Returns:
        int64 [P, 2], each pair once, the preferred row first; and whether all pairs that agree on a band are among
        them, which is not so where more than `ALL_PAIRS_UP_TO` rows agree on one.
    """
    least = int((threshold - ESTIMATE_MARGIN) * PERMUTATIONS)
    codes, complete = np.zeros(0, dtype=np.int64), True
    next_keys = first_keys = _band_keys(signed, rows, 0)
    for band in range(BANDS):
        keys, next_keys = next_keys, _band_keys(signed, rows, band + 1) if band + 1 < BANDS else first_keys
        places, all_pairs = _pairs_of_equals(keys, next_keys)
        complete = complete and all_pairs
        pairs = rows[places]
        pairs = pairs[_agreements(signed, pairs) >= least]
        codes = np.union1d(codes, pairs[:, 0] * len(signed) + pairs[:, 1])
    return np.stack(np.divmod(codes, max(1, len(signed))), axis=1), complete


def _least(numbers: Signatures, offsets: Offsets, factors: Signatures, shifts: Signatures) -> Signatures:
    """The least number of each row under each permutation, [rows, 120]."""
    least = np.full((PERMUTATIONS, len(offsets) - 1), np.iinfo(np.uint32).max, dtype=np.uint32)
    filled = np.flatnonzero(np.diff(offsets))
    permuted = np.empty_like(numbers)
    for permutation in range(PERMUTATIONS if len(filled) else 0):
        np.multiply(numbers, factors[permutation], out=permuted)
        np.add(permuted, shifts[permutation], out=permuted)
        least[permutation, filled] = np.minimum.reduceat(permuted, offsets[filled])
    return least.T


def _band_keys(signed: Signatures, rows: NDArray[np.int64], band: int) -> UInt64s:
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
        key = mixed(key + signed[:, column][rows])
    return key


def _pairs_of_equals(keys: UInt64s, second_keys: UInt64s) -> tuple[Pairs, bool]:
    """Pairs of places with the same key, the lower place first, and whether they are all of them.

    In a large group only neighbors are paired; it is sorted by `second_keys`, so that those that agree there, too, are
    neighbors.
    """
    if not len(keys):
        return np.zeros((0, 2), dtype=np.int64), True
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    pairs = []
    for size in range(2, ALL_PAIRS_UP_TO + 1):
        groups = order[starts[sizes == size][:, None] + np.arange(size)]
        first, second = np.triu_indices(size, 1)
        pairs.append(np.stack([groups[:, first].ravel(), groups[:, second].ravel()], axis=1))
    large = sizes > ALL_PAIRS_UP_TO
    for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
        group = order[start : start + size]
        pairs.append(np.stack([np.full(size - 1, group[0]), group[1:]], axis=1))
        group = group[np.argsort(second_keys[group], kind="stable")]
        pairs += [np.stack([group[:-away], group[away:]], axis=1) for away in range(1, NEIGHBORS + 1)]
    return np.sort(np.concatenate(pairs), axis=1), not large.any()


def _agreements(signed: Signatures, pairs: Pairs, block: int = 100_000) -> NDArray[np.int64]:
    """On how many permutations the signatures of each pair agree."""
    counts = [
        np.count_nonzero(signed[pairs[start : start + block, 0]] == signed[pairs[start : start + block, 1]], axis=1)
        for start in range(0, len(pairs), block)
    ]
    return cast("NDArray[np.int64]", np.concatenate([np.zeros(0, dtype=np.int64), *counts]))
