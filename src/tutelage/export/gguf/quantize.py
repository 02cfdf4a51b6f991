"""Encodes one tensor: floats to the bytes of a GGUF type, and how far they are from what was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from tutelage.errors import DataError, DependencyError

Type = GGMLQuantizationType
LARGEST_F16 = 65504.0
"""The largest finite number of IEEE 754 binary16."""
NATIVE = (Type.Q4_K, Type.Q5_K, Type.Q6_K)
"""Types that the `gguf` package decodes only; `libgguf` writes the bytes of llama.cpp."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tensor's bytes, and the root mean square of their error over that of the values."""

    data: NDArray[np.generic]
    error: float


def encode(name: str, values: NDArray[np.float32], kind: GGMLQuantizationType) -> Encoded:
    """The bytes of a tensor.

    Args:
        name: of the tensor, for errors.
        values: fp32, rows last.
        kind: what its bytes are.

    Raises:
        DataError: it holds NaN or infinity, or a number that f16 cannot hold.
        DependencyError: `libgguf` is not installed, and `kind` needs it.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        raise DataError(
            "A tensor holds NaN or infinity",
            where=name,
            found=f"{int((~np.isfinite(values)).sum())} such numbers of {values.size}",
            expected="finite numbers",
            fix="take an earlier checkpoint; this one is broken",
        )
    if kind == Type.F16 and largest > LARGEST_F16:
        raise DataError(
            "A number of the model is beyond what f16 can hold",
            where=name,
            found=f"{largest:g}",
            expected=f"at most {LARGEST_F16:g}",
            fix="--type bf16, which holds any fp32 number's size, or --type f32",
        )
    if kind == Type.F32:
        return Encoded(values, 0.0)
    if kind in NATIVE:
        native = _libgguf()
        data: NDArray[np.generic] = native.quantize_rows(values, int(kind))
        decoded = native.dequantize_rows(data, int(kind), n_per_row=values.shape[-1]).reshape(values.shape)
    else:
        data = quants.quantize(values, kind)
        decoded = quants.dequantize(data, kind)
    return Encoded(data, relative_error(decoded, values))


def relative_error(decoded: NDArray[np.float32], values: NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of the values; 0 where all values are 0."""
    size = float(np.square(values, dtype=np.float64).mean())
    return float(np.sqrt(np.square(decoded - values, dtype=np.float64).mean() / size)) if size else 0.0


def encoded_bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    """How many bytes a tensor takes."""
    from gguf import GGML_QUANT_SIZES

    block, size = map(int, GGML_QUANT_SIZES[kind])
    return math.prod(shape) // block * size


def require_encoder(kinds: set[GGMLQuantizationType]) -> None:
    """Say what is missing before anything is written.

    Raises:
        DependencyError: `libgguf` is not installed, and one of `kinds` needs it.
    """
    if kinds & set(NATIVE):
        _libgguf()


def _libgguf() -> Any:
    try:
        import libgguf
    except ImportError as error:
        raise DependencyError(
            "The types Q4_K, Q5_K and Q6_K need the package libgguf",
            fix="pip install 'tutelage[gguf]', or take --type q8_0",
        ) from error
    return libgguf
