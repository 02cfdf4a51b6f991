"""Reads the input embedding of a checkpoint with numpy alone and tells rows that were never trained. No torch.

Shape legend: V = rows of the embedding, H = its width, K = some of the rows.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.model.safetensors_header import damaged_weights, read_header
from tutelage.render.tokenizer import Tokenizer, read_object

NEAR = 0.01
"""Rows nearer to each other (or to zero, or to the mean of all rows) than this share of an ordinary row's distance were
never trained apart. Measured on SmolLM2-135M-Instruct, whose embedding is tied: its reserved tokens lie within 0.003 of
each other, the next row (a NUL byte) at 0.019, the rarest words at 0.03 and more, and tokens that only fine-tuning saw
(`<|im_start|>`, `<|im_end|>`) at 0.14 and 0.16. New rows made by resizing lie at the mean; reserved rows of Llama 3 at
zero. Source of the idea (rows of tokens that are surely unused as the reference): Land and Bartolo 2024, section 2."""

SMALLEST_GROUP = 3
"""Rows that agree before agreement says anything: two words may be each other's spelling."""
MOST_REFERENCES = 2048
CHUNK_ROWS = 8192
_UNUSED_NAME = re.compile(r"reserved|unused|extra_id|placeholder|<\|?(?:dummy|fake)", re.IGNORECASE)
_IMPOSSIBLE_BYTES = (0xC0, 0xC1, *range(0xF5, 0x100))
"""Bytes that no UTF-8 text holds (RFC 3629): tokens for them are in most vocabularies and in no text."""

Matrix = NDArray[Any]
Flags = NDArray[np.bool_]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Embedding:
    """The input embedding as it lies on disk, mapped and not read.

    Attributes:
        name: the tensor's name.
        stored_VH: float32 or float16; bfloat16 as uint16.
        dtype: as the safetensors header spells it.
    """

    name: str
    stored_VH: Matrix
    dtype: str

    @property
    def rows(self) -> int:
        """V."""
        return int(self.stored_VH.shape[0])

    def read(self, rows: slice | Sequence[int]) -> Values:
        """Some rows as float32 [K, H]."""
        stored = np.asarray(self.stored_VH[rows if isinstance(rows, slice) else list(rows)])
        if self.dtype == "BF16":
            return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return stored.astype(np.float32)

    def chunks(self) -> Iterator[tuple[slice, Values]]:
        """All rows in order, CHUNK_ROWS at a time."""
        for start in range(0, self.rows, CHUNK_ROWS):
            chunk = slice(start, min(start + CHUNK_ROWS, self.rows))
            yield chunk, self.read(chunk)


@dataclass(frozen=True)
class EmbeddingState:
    """Which rows were trained, and how far each is from those that surely were not.

    Attributes:
        untrained_V: rows that no training has told apart.
        why: for each group of such rows what shows it, in words.
        norms_V: length of each row.
        distance_V: distance to the reference row as a share of an ordinary row's; all NaN without a reference.
        reference: ids of the rows the distance is taken from.
    """

    untrained_V: Flags
    why: tuple[str, ...]
    norms_V: Values
    distance_V: Values
    reference: tuple[int, ...]


def read_embedding(folder: Path) -> Embedding | None:
    """The input embedding of the safetensors in `folder`; None where there are no weights or none of its kind.

    Raises:
        DataError: a safetensors file is damaged.
    """
    settings = folder / "config.json"
    config = read_object(settings)
    names_by_role = tomllib.loads(files("tutelage.audit").joinpath("embedding_names.toml").read_text(encoding="utf-8"))
    headers = {path: read_header(path) for path in sorted(folder.glob("*.safetensors"))}
    for ending in names_by_role["input"]:
        for path, (header, offset) in headers.items():
            for name, entry in header.items():
                if name == ending or name.endswith("." + ending):
                    return _mapped(path, name, entry, offset)
    shape = [config.get("vocab_size"), config.get("hidden_size")]
    for path, (header, offset) in headers.items():
        for name, entry in header.items():
            if entry.get("shape") == shape and not name.endswith(tuple(names_by_role["output"])):
                return _mapped(path, name, entry, offset)
    return None


def output_head(folder: Path) -> str | None:
    """Name of the output head's weights in the safetensors of `folder`; None where they are the input embedding.

    Raises:
        DataError: a safetensors file is damaged.
    """
    names_by_role = tomllib.loads(files("tutelage.audit").joinpath("embedding_names.toml").read_text(encoding="utf-8"))
    names = [name for path in sorted(folder.glob("*.safetensors")) for name in read_header(path)[0]]
    return next((name for name in names if name.endswith(tuple(names_by_role["output"]))), None)


def _mapped(path: Path, name: str, entry: dict[str, Any], offset: int) -> Embedding | None:
    dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(entry["dtype"])
    if dtype is None or len(entry["shape"]) != 2:
        return None
    start, end = entry["data_offsets"]
    if offset + end > path.stat().st_size:
        raise damaged_weights(path, f"{name} ends beyond the file")
    if end - start != math.prod(entry["shape"]) * np.dtype(dtype).itemsize:
        raise damaged_weights(path, f"{name} takes {end - start} bytes, which is not its shape {entry['shape']}")
    stored = np.memmap(path, dtype=dtype, mode="r", offset=offset + start, shape=tuple(entry["shape"]))
    return Embedding(name, stored, entry["dtype"])


def embedding_state(embedding: Embedding, tokenizer: Tokenizer) -> EmbeddingState:
    """Look for rows that training never told apart: at zero, at the mean, or at one point with rows surely unused."""
    norms = np.zeros(embedding.rows, dtype=np.float32)
    total = np.zeros(embedding.stored_VH.shape[1], dtype=np.float64)
    for chunk, rows in embedding.chunks():
        norms[chunk] = np.linalg.norm(rows, axis=1)
        total += rows.sum(axis=0, dtype=np.float64)
    mean = (total / embedding.rows).astype(np.float32)
    untrained = norms <= NEAR * float(np.median(norms))
    why = [f"{int(untrained.sum())} rows are zero or nearly so"] if untrained.any() else []
    at_mean = _shares(embedding, mean) <= NEAR
    if at_mean.any():
        why.append(f"{int(at_mean.sum())} rows lie at the mean of all rows, where resizing puts new ones")
    untrained |= at_mean
    reference = _agreeing(embedding, unused_rows(tokenizer, embedding.rows))
    distance = np.full(embedding.rows, np.nan, dtype=np.float32)
    if len(reference):
        distance = _shares(embedding, np.median(embedding.read(reference.tolist()), axis=0).astype(np.float32))
        near = distance <= NEAR
        why.append(f"{int(near.sum())} rows lie at one point, among them tokens that no text holds")
        untrained |= near
    return EmbeddingState(untrained, tuple(why), norms, distance, tuple(reference.tolist()))


def untrained_tokens(folder: Path, tokenizer: Tokenizer) -> Flags | None:
    """Bool [V]: rows of the model's embedding that were never trained; None where `folder` holds no weights.

    Raises:
        DataError: a safetensors file is damaged.
    """
    embedding = read_embedding(folder)
    return None if embedding is None else embedding_state(embedding, tokenizer).untrained_V


def unused_rows(tokenizer: Tokenizer, rows: int) -> list[int]:
    """Rows to compare with: special tokens, names such as reserved, impossible bytes, rows beyond the tokenizer.

    Special tokens are only candidates: those in use do not agree with each other.
    """
    fast = tokenizer.fast
    added = fast.get_added_tokens_decoder()
    unused_ids = [index for index, token in added.items() if token.special or _UNUSED_NAME.search(token.content)]
    for byte in _IMPOSSIBLE_BYTES:
        spellings = (f"<0x{byte:02X}>", chr(byte))  # byte fallback, and the characters that byte-level BPE gives them
        unused_ids += [index for spelling in spellings if (index := fast.token_to_id(spelling)) is not None]
    unused_ids += range(fast.get_vocab_size(), rows)
    return sorted({index for index in unused_ids if index < rows})[:MOST_REFERENCES]


def _agreeing(embedding: Embedding, candidates: Sequence[int]) -> NDArray[np.int64]:
    """The largest group of candidates that lie within NEAR of one of them; empty when it is too small."""
    empty = np.zeros(0, dtype=np.int64)
    if len(candidates) < SMALLEST_GROUP:
        return empty
    rows = embedding.read(candidates)
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * (rows @ rows.T).astype(np.float64), 0.0))
    scale = float(np.median(np.linalg.norm(_sample(embedding) - rows[0], axis=1)))
    close = apart <= NEAR * scale
    center = int(close.sum(axis=1).argmax())
    group = np.asarray(candidates, dtype=np.int64)[close[center]]
    return group if len(group) >= SMALLEST_GROUP else empty


def _sample(embedding: Embedding) -> Values:
    return embedding.read(np.linspace(0, embedding.rows - 1, min(embedding.rows, 1024)).astype(int).tolist())


def _shares(embedding: Embedding, point: Values) -> Values:
    """Distance of each row from `point`, as a share of the median distance."""
    distance = np.zeros(embedding.rows, dtype=np.float32)
    for chunk, rows in embedding.chunks():
        distance[chunk] = np.linalg.norm(rows - point, axis=1)
    median = float(np.median(distance))
    return distance / np.float32(median) if median > 0 else np.full_like(distance, np.inf)
