"""Bytes, errors and time of the encoders of GGUF types beside llama.cpp's own function, in one run, by turns.

    python benchmarks/gguf/encoders.py

llama.cpp's function is a symbol of xllamacpp's shared object, which is no interface: good enough to compare with here.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable

import libgguf
import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType, quants

Type = GGMLQuantizationType
KINDS = (Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K, Type.Q6_K)
TURNS = 7


def main() -> None:
    """Print a row for each type and kind of values."""
    chunk = ctypes.CDLL(xllamacpp.xllamacpp.__file__).ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def by_llama_cpp(values: np.ndarray, kind: Type) -> np.ndarray:
        data = np.zeros((len(values), libgguf.row_size(int(kind), values.shape[1])), np.uint8)
        chunk(int(kind), values.ctypes.data, data.ctypes.data, 0, *values.shape, None)
        return data

    encoders: dict[str, Callable[[np.ndarray, Type], np.ndarray]] = {
        "llama.cpp": by_llama_cpp,
        "libgguf": lambda values, kind: libgguf.quantize_rows(values, int(kind)),
        "gguf": quants.quantize,
    }
    for kind in KINDS:
        for name, values in _values().items():
            print(f"{kind.name:5} {name:7}", *_row(encoders, values, kind))


def _values() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    normal = (draw.standard_normal((256, 1536)) * 0.05).astype(np.float32)
    return {
        "normal": normal,
        "heavy": (draw.standard_t(2.2, normal.shape) * 0.02).astype(np.float32),
        "sparse": np.where(draw.random(normal.shape) < 0.9, 0, normal).astype(np.float32),
        "bf16": (normal.view(np.uint32) & 0xFFFF0000).view(np.float32),
    }


def _row(encoders: dict[str, Callable[..., np.ndarray]], values: np.ndarray, kind: Type) -> list[str]:
    expected = encoders["llama.cpp"](values, kind)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    equal: dict[str, bool | None] = {}
    for _ in range(TURNS):
        for name, encode in encoders.items():
            started = time.perf_counter()
            try:
                data = encode(values, kind)
            except NotImplementedError:
                equal[name] = None
                continue
            seconds[name].append(time.perf_counter() - started)
            equal[name] = bool(np.array_equal(data, expected))
    decoded = quants.dequantize(expected, kind)
    error = float(np.sqrt(np.mean((decoded - values) ** 2) / np.mean(values**2)))
    base = statistics.median(seconds["llama.cpp"])
    shown = [f"relative error {error:.4f}"]
    for name in ("libgguf", "gguf"):
        if equal[name] is None:
            shown.append(f"| {name}: does not encode it")
        else:
            ratio = statistics.median(seconds[name]) / base
            shown.append(f"| {name}: {'equal bytes' if equal[name] else 'OTHER BYTES'}, {ratio:.1f} times the time")
    return shown


if __name__ == "__main__":
    main()
