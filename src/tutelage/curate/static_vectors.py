"""Vectors of texts: the mean of a packaged table's vectors of their tokens, of length 1.

The table and the tokenizer are those of the package wordllama. Its own loader is not used: it looks for the packaged
tokenizer in a folder of another name and would download it.

Shape legend: R = texts, D = 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DependencyError

WEIGHTS, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
MOST_CHARACTERS = 8_000
"""Of a text that are read: what follows changes a mean of so many tokens little."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StaticVectors:
    """A table of vectors and its tokenizer.

    Attributes:
        table: float32 [tokens, D].
        tokenizer: of the package tokenizers.
    """

    table: Vectors
    tokenizer: Any

    def of(self, texts: Sequence[str]) -> Vectors:
        """float32 [R, D]; zeros for a text without tokens."""
        vectors = np.zeros((len(texts), self.table.shape[1]), dtype=np.float32)
        encodings = self.tokenizer.encode_batch([text[:MOST_CHARACTERS] for text in texts], add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            if encoding.ids:
                total = self.table[encoding.ids].sum(axis=0)
                vectors[row] = total / max(float(np.linalg.norm(total)), 1e-12)
        return vectors


def require_static_vectors(setting: str, without: str) -> Path:
    """The folder of the package.

    Args:
        setting: what asks for it.
        without: what to set to do without it.

    Raises:
        DependencyError: it is not installed, or holds no such table.
    """
    package = find_spec("wordllama")
    folder = Path(package.origin).parent if package is not None and package.origin is not None else None
    if folder is None or find_spec("safetensors") is None:
        raise DependencyError(
            f"{setting} needs the package wordllama",
            found="it is not installed",
            fix=f'pip install "tutelage[semantic]", or {without}',
        )
    if missing := next((name for name in (WEIGHTS, TOKENIZER) if not (folder / name).is_file()), None):
        raise DependencyError(
            "This version of wordllama brings no table of vectors that can be used",
            where=str(folder / missing),
            fix='pip install "wordllama==0.4.0.post1"',
        )
    return folder


@cache
def static_vectors(folder: Path) -> StaticVectors:
    """The table, read once in a process."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    if not folder.is_dir():  # this worker is on another machine, which has the package elsewhere
        folder = require_static_vectors("A worker", "leave out the step that needs it")
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return StaticVectors(load_file(folder / WEIGHTS)["embedding.weight"].astype(np.float32), tokenizer)
