"""The name that llama.cpp has for how a byte-level tokenizer cuts a text, read from the tokenizer's own description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.errors import DataError
from tutelage.export.gguf.family import SAFETENSORS_STAY
from tutelage.model.gguf_tokenizer import known_pre_tokenizers

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` cuts by itself unless told otherwise. Source: tokenizers, pre_tokenizers/byte_level.rs."""
DIGIT = r"\p{N}"


def pre_tokenizer_name(description: Mapping[str, Any], where: str) -> str:
    """The name for `tokenizer.ggml.pre`.

    Args:
        description: the object of tokenizer.json.
        where: that file, for errors.

    Raises:
        DataError: nothing of that description is known to give the ids of llama.cpp. It is not guessed.
    """
    patterns = _patterns(description.get("pre_tokenizer"))
    whole_words = bool(description["model"].get("ignore_merges"))
    for name, known in known_pre_tokenizers().items():
        if known.patterns == patterns and known.whole_words == whole_words:
            return name  # the first of a way to cut is the one it is known by
    raise DataError(
        "llama.cpp has no name for how this tokenizer cuts a text",
        where=where,
        found=f"{'no known parts' if patterns is None else ' then '.join(patterns)}"
        f"{', whole words first' if whole_words else ''}",
        expected=f"a way to cut whose ids were compared: {', '.join(sorted(known_pre_tokenizers()))}",
        fix=SAFETENSORS_STAY,
    )


def _patterns(part: Any) -> tuple[str, ...] | None:
    """The patterns one after the other; None where a part is of another kind."""
    if not isinstance(part, dict):
        return None
    kind = part.get("type")
    if kind == "Sequence":
        lists = [_patterns(inner) for inner in part["pretokenizers"]]
        return None if None in lists else tuple(pattern for patterns in lists for pattern in patterns or ())
    if kind == "ByteLevel":
        if part.get("add_prefix_space"):
            return None
        return (GPT2_PATTERN,) if part.get("use_regex", True) else ()
    pattern = None
    if kind == "Digits" and part.get("individual_digits"):
        pattern = DIGIT
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        pattern = part["pattern"].get("Regex")
    return None if pattern is None else (pattern,)
