"""The header of a safetensors file: which tensors it holds, of which type and shape, and where. No torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tutelage.errors import DataError


def stored_tensors(folder: Path) -> dict[str, int]:
    """The tensors of all safetensors files in `folder`, and how many numbers each has.

    Raises:
        DataError: a file is damaged.
    """
    headers = [read_header(path)[0] for path in sorted(folder.glob("*.safetensors"))]
    return {name: math.prod(entry["shape"]) for header in headers for name, entry in header.items()}


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors a safetensors file lists, and where their bytes begin."""
    with path.open("rb") as stream:
        length_bytes = stream.read(8)
        length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else 0
        if not 0 < length <= path.stat().st_size - 8:
            raise damaged_weights(path, "its first eight bytes are no length of a header")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise damaged_weights(path, str(error)) from error
    if not isinstance(header, dict):
        raise damaged_weights(path, "its header is no object")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in tensors.items():
        if not _is_entry(entry):
            raise damaged_weights(path, f"{name!r} has no type, shape and place in the header")
    return tensors, 8 + length


def _is_entry(entry: Any) -> bool:
    """Whether this says type, shape and place of a tensor, as the format wants it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    offsets = entry.get("data_offsets")
    for numbers in (entry.get("shape"), offsets):
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            return False
    return isinstance(offsets, list) and len(offsets) == 2 and offsets[0] <= offsets[1]


def damaged_weights(path: Path, reason: str) -> DataError:
    """The error for a safetensors file that is not whole: `reason` says what is wrong with the file at `path`."""
    return DataError(
        "The weights cannot be read",
        where=str(path),
        found=reason,
        expected="a whole safetensors file",
        fix="fetch the file again",
    )
