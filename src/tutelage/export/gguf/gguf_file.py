"""Writes the file: header first, then one tensor after the other, so that a large model needs little memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from tutelage.errors import ConfigError, SaveError, cause_of, remedy
from tutelage.export.gguf.file_types import FileType, tensor_type
from tutelage.export.gguf.quantize import encode, encoded_bytes, require_encoder
from tutelage.export.gguf.tensors import Tensor
from tutelage.system.files import publish, scratch_path


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """What became of a tensor: its type, and the root mean square of the error over that of the values."""

    name: str
    kind: GGMLQuantizationType
    error: float


def write_gguf(
    path: Path,
    architecture: str,
    tensors: Sequence[Tensor],
    kinds: Sequence[GGMLQuantizationType],
    describe: Callable[[GGUFWriter], None],
) -> list[WrittenTensor]:
    """Write a file, whole or not at all is the caller's part.

    Args:
        path: where.
        architecture: its name in GGUF.
        tensors: in the order they are written.
        kinds: the type of each.
        describe: writes all keys.

    Raises:
        DataError: a tensor cannot be encoded.
        DependencyError: a type needs a package that is not installed.
        SaveError: the disk is full or refuses.
    """
    require_encoder(set(kinds))
    writer = GGUFWriter(None, architecture)
    describe(writer)
    for tensor, kind in zip(tensors, kinds, strict=True):
        # The shape counts numbers, not bytes: with a type that is no uint8 the package takes it as it is.
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), encoded_bytes(tensor.shape, kind), raw_dtype=kind
        )
    written = []
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, kind in zip(tensors, kinds, strict=True):
            encoded = encode(tensor.source or tensor.name, tensor.load(), kind)
            writer.write_tensor_data(encoded.data)
            written.append(WrittenTensor(tensor.name, kind, encoded.error))
    finally:
        if writer.fout is not None:
            writer.close()
    return written


@contextmanager
def new_gguf(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path` when the block ends; where it fails, nothing is left.

    Raises:
        ConfigError: `path` is there.
        SaveError: the disk is full or refuses.
    """
    if os.path.lexists(path):
        raise ConfigError("The file to export to is there already", where=str(path), fix="name another file")
    scratch = scratch_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        publish(scratch, path)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            "The GGUF file could not be written",
            where=str(path),
            found=cause_of(error),
            fix=remedy(error, elsewhere="name another folder"),
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def kinds_of(tensors: Sequence[Tensor], kind: FileType, *, layers: int) -> list[GGMLQuantizationType]:
    """The type of each tensor of a model."""
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    return [tensor_type(tensor.name, tensor.shape, kind, layers=layers, tied=tied) for tensor in tensors]
