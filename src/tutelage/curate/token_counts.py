"""Tokens of texts, by a `tokenizer.json` alone: no model, no template, no special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError

ENCODED_TOGETHER = 512


def token_counts(texts: Sequence[str], content: str) -> list[int]:
    """Tokens of each text.

    Args:
        texts: any number.
        content: of a tokenizer.json. The file itself is not on every machine that counts.
    """
    tokenizer, counts = _tokenizer(content), []
    for start in range(0, len(texts), ENCODED_TOGETHER):
        encodings = tokenizer.encode_batch_fast(list(texts[start : start + ENCODED_TOGETHER]), add_special_tokens=False)
        counts += [len(encoding.ids) for encoding in encodings]
    return counts


def tokenizer_file(step: str, reader: str, value: str | None, otherwise: str) -> Path:
    """The file that a setting `tokenizer` of a step names.

    Args:
        step: whose setting it is.
        reader: the setting of that step that counts by it.
        value: of the setting.
        otherwise: what to set to do without.

    Raises:
        ConfigError: nothing is named, or there is no such file.
    """
    path = None if value is None else Path(value).expanduser()
    if path is not None and path.is_dir():
        path /= "tokenizer.json"
    if path is None or not path.is_file():
        raise ConfigError(
            f"curate.{step}.{reader} needs a tokenizer to count by",
            where=f"curate.{step}.tokenizer",
            found="nothing" if path is None else f"no file {path}",
            expected="a tokenizer.json, or the folder of a model with one",
            fix=f"name it, or {otherwise}",
        )
    return path


@lru_cache(maxsize=2)
def _tokenizer(content: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content)
