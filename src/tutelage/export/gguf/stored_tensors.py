"""The tensors in a folder's safetensors files, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tutelage.errors import DataError, SourceNotFoundError

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """Names and shapes of a model's tensors, and the file that each is in."""

    shapes: Mapping[str, tuple[int, ...]]
    files: Mapping[str, Path]

    @classmethod
    def of_model(cls, folder: Path) -> StoredTensors:
        """Those of a model's folder, in one file or sharded.

        Raises:
            SourceNotFoundError: it has none.
            DataError: a file is damaged.
        """
        index = folder / INDEX
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        else:
            names = ["model.safetensors"]
        return cls.of_files([folder / Path(name).name for name in names])

    @classmethod
    def of_files(cls, paths: list[Path]) -> StoredTensors:
        """Those of some files.

        Raises:
            SourceNotFoundError: one of them is missing.
            DataError: a file is damaged.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        files: dict[str, Path] = {}
        for path in paths:
            if not path.is_file():
                raise SourceNotFoundError(
                    "The folder has no weights in safetensors",
                    where=str(path.parent),
                    expected=path.name,
                    fix="export the run first: tutelage export RUN --to hf",
                )
            try:
                with safe_open(path, framework="pt") as stored:
                    for name in stored.keys():  # noqa: SIM118 - not a mapping
                        shapes[name] = tuple(stored.get_slice(name).get_shape())
                        files[name] = path
            except SafetensorError as error:
                raise DataError(
                    "A file of weights cannot be read", where=str(path), found=str(error), fix="write it again"
                ) from error
        return cls(shapes, files)

    def load(self, name: str) -> torch.Tensor:
        """One tensor in fp32, as the format it is stored in holds it."""
        with safe_open(self.files[name], framework="pt") as stored:
            tensor: torch.Tensor = stored.get_tensor(name)
        return tensor.to(torch.float32)
