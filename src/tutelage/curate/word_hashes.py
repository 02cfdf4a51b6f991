"""Words as 64-bit numbers, and runs of words as numbers made of theirs: the same on every machine, run and worker.

Shape legend: R = texts, T = words of all texts, G = runs of words (n-grams) of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.texts import words as words_of

UInt64s = NDArray[np.uint64]
Offsets = NDArray[np.int64]

CACHED_WORDS = 500_000
"""Distinct words whose numbers are kept at hand; some 60 MB. A text of more words costs time and nothing else."""
_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: odd, and its powers are far apart. Source: Knuth, volume 3, section 6.4."""


TEXT_BYTES_AT_ONCE = 1 << 17
"""Bytes of text whose words are numbered together: enough for NumPy's overhead, few enough for a processor's cache."""
_PIECE = 8
_WORD_BYTES = bytes(
    code if code >= 0x80 else ord(chr(code).lower()) if chr(code).isalnum() or chr(code) == "_" else 0
    for code in range(256)
)
"""A byte of a word of ASCII in small letters, of any other as it is, and 0 for what separates words."""
_WHITE_SPACE = bytes(not chr(code).isspace() for code in range(0x80)) + bytes([1]) * 0x80
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(_PIECE + 1)], dtype=np.uint64)
_CACHED_LETTERS = 32
_LONG_WORD = 1 << 10
"""Bytes of a word beyond which the rest is numbered at once: of one long word each eight bytes are a round."""


class _WordHashes(dict[str, int]):
    """The number of each word, computed when it is first met."""

    def __missing__(self, word: str) -> int:
        if len(self) >= CACHED_WORDS:
            self.clear()
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = self[word] = int.from_bytes(digest, "little")
        return number


_WORD_HASHES = _WordHashes()


@dataclass(frozen=True, slots=True)
class Ragged:
    """Numbers of several texts, end to end.

    Attributes:
        values: [T], those of the first text first.
        offsets: int64 [R + 1]; the values of text i are `values[offsets[i] : offsets[i + 1]]`.
    """

    values: UInt64s
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> UInt64s:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> Offsets:
        """Numbers of each text, int64 [R]."""
        return np.diff(self.offsets)


def offsets_of(lengths: NDArray[np.integer] | Sequence[int]) -> Offsets:
    """int64 [R + 1]: where each text begins and ends, from the lengths of all."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def hashed_words(texts: Sequence[Sequence[str]]) -> Ragged:
    """The number of each word of each text, uint64 [T]: the first 8 bytes of its BLAKE2b."""
    offsets = offsets_of([len(text) for text in texts])
    numbers = map(_WORD_HASHES.__getitem__, chain.from_iterable(texts))
    return Ragged(np.fromiter(numbers, np.uint64, int(offsets[-1])), offsets)


def numbered_words(texts: Sequence[str]) -> Ragged:
    """The number of each word (`texts.words`) of each text, uint64 [T]: other numbers than those of `hashed_words`.

    Found in all texts at once: words are split and numbered as bytes, eight at a time, and no word becomes an object.
    """
    pieces, start, size = [], 0, 0
    encoded = [_spelled(text) for text in texts]
    for place, text in enumerate(encoded):
        size += len(text)
        if size >= TEXT_BYTES_AT_ONCE or place == len(encoded) - 1:
            pieces.append(_numbered(encoded[start : place + 1]))
            start, size = place + 1, 0
    counts = [np.zeros(0, dtype=np.int64), *(piece.lengths for piece in pieces)]
    values = [np.zeros(0, dtype=np.uint64), *(piece.values for piece in pieces)]
    return Ragged(np.concatenate(values), offsets_of(np.concatenate(counts)))


def _spelled(text: str) -> bytes:
    """A text in which the words are what stands between bytes that are in no word, case in ASCII aside."""
    if text.isascii():
        return text.encode()
    tokens = [token if token.isascii() else _spelled_token(token) for token in text.split(" ")]
    return " ".join(tokens).encode("utf-8", "surrogatepass")


def _spelled_token(token: str) -> str:
    return _known_words(token) if len(token) <= _CACHED_LETTERS else " ".join(words_of(token))


@lru_cache(maxsize=50_000)
def _known_words(token: str) -> str:
    return " ".join(words_of(token))


def _numbered(texts: Sequence[bytes]) -> Ragged:
    letters = b"\0".join([b"", *texts, bytes(_PIECE)]).translate(_WORD_BYTES)
    is_word = np.frombuffer(letters, dtype=np.uint8) != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    # Eight bytes from every place on, as one number each.
    pieces = np.ndarray((len(letters) - _PIECE + 1,), "<u8", letters, 0, (1,))
    numbers = mixed(
        (pieces[starts] & _FIRST_BYTES[np.minimum(lengths, _PIECE)]) + lengths.astype(np.uint64) * _power(1)
    )
    longer, done = np.flatnonzero(lengths > _PIECE), _PIECE
    while len(longer) and done < _LONG_WORD:
        left = lengths[longer] - done
        piece = pieces[starts[longer] + done] & _FIRST_BYTES[np.minimum(left, _PIECE)]
        numbers[longer] = mixed(numbers[longer] + piece)
        longer, done = longer[left > _PIECE], done + _PIECE
    for word in longer.tolist():
        rest = letters[starts[word] + done : starts[word] + lengths[word]]
        numbers[word] ^= np.uint64(int.from_bytes(blake2b(rest, digest_size=_PIECE).digest(), "little"))
    offsets = offsets_of([len(text) + 1 for text in texts]) + 1
    return Ragged(numbers, np.searchsorted(starts, offsets))


def spaced_word_counts(texts: Sequence[str]) -> Offsets:
    """How many words between white space each text has, as `str.split` cuts them: int64 [R]."""
    counts = np.zeros(len(texts), dtype=np.int64)
    plain = [place for place, text in enumerate(texts) if text.isascii()]
    if len(plain) < len(texts):
        for place, text in enumerate(texts):
            if not text.isascii():
                counts[place] = len(text.split())
    if plain:
        lengths = [len(texts[place]) + 1 for place in plain]
        letters = "\n".join(["", *(texts[place] for place in plain), ""]).encode().translate(_WHITE_SPACE)
        is_word = np.frombuffer(letters, dtype=np.bool_)
        begins = is_word[1:] & ~is_word[:-1]
        counts[plain] = np.add.reduceat(begins, offsets_of(lengths)[:-1], dtype=np.int64)
    return counts


def run_hashes(words: UInt64s, width: int) -> UInt64s:
    """A number for each run of `width` words, uint64 [T - width + 1], empty where there are fewer words.

    The words' numbers times powers of an odd constant, summed; then mixed, so that each bit hangs on all words.
    """
    runs = max(0, len(words) - width + 1)
    total = np.zeros(runs, dtype=np.uint64)
    for place in range(width):
        total += words[place : place + runs] * _power(place)
    return mixed(total)


def ragged_run_hashes(words: Ragged, width: int) -> Ragged:
    """The runs of `width` words of each text; none goes over the end of a text. A shorter text has none."""
    counts = np.maximum(words.lengths - width + 1, 0)
    offsets = offsets_of(counts)
    starts = np.repeat(words.offsets[:-1] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Ragged(run_hashes(words.values, width)[starts], offsets)


def sequence_numbers(rows: Ragged) -> UInt64s:
    """A number for each row, uint64 [R], made of all its numbers in their order, and of how many they are."""
    places = np.arange(len(rows.values), dtype=np.uint64) - np.repeat(rows.offsets[:-1], rows.lengths).astype(np.uint64)
    totals = np.zeros(len(rows), dtype=np.uint64)
    filled = rows.lengths > 0
    if filled.any():
        totals[filled] = np.add.reduceat(mixed(rows.values + places * _power(1)), rows.offsets[:-1][filled])
    return mixed(totals + rows.lengths.astype(np.uint64))


def mixed(numbers: UInt64s) -> UInt64s:
    """Numbers whose bits all hang on all bits of these, one to one. Source: SplitMix64, Steele et al. 2014."""
    mixed_numbers = numbers ^ (numbers >> np.uint64(30))
    mixed_numbers *= np.uint64(0xBF58476D1CE4E5B9)
    mixed_numbers ^= mixed_numbers >> np.uint64(27)
    mixed_numbers *= np.uint64(0x94D049BB133111EB)
    mixed_numbers ^= mixed_numbers >> np.uint64(31)
    return cast("UInt64s", mixed_numbers)


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_GOLDEN, exponent, 1 << 64))
