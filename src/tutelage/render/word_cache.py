"""Encodes texts word by word, where no rule of the tokenizer looks across the space before a word.

Most words of a text stood in an earlier one. Tokenizers of the GPT-2 kind cut a text by a pattern before they encode
anything, and the pattern always cuts between a character that is no white space and a space behind it. So the ids of a
text are those of its words, each with the spaces before it, and a word that was encoded before need not be again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

WORDS_KEPT = 1 << 16
"""Words remembered from call to call (about 25 MB)."""
WORDS_TOGETHER = 64
"""Words that are encoded as one text: a text of its own for each takes half as long again."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CUTTING_PATTERNS = frozenset(
    {
        GPT2_PATTERN,
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",  # GPT-4, Llama 3
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",  # Qwen 2
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
        rf"{_CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # GPT-4o
    }
)
"""Patterns of which no branch matches a character that is no white space and a space behind it, and none looks behind
itself, or ahead but from the end of white space: so what stands on one side of such a place decides nothing on the
other. Source: the `tokenizer.json` files of these models."""
NARROW_PATTERNS = frozenset({r"\p{N}", r"\p{N}{1,3}"})
"""Patterns that match no space at all: they may cut a text further."""

_SPACE_IN_WHITE_SPACE = re.compile(r"\s ").search
_CUT = re.compile(r"(?<=\S) ").split


class WordEncoder:
    """Ids of texts without added tokens, equal to `encode_batch_fast(texts, add_special_tokens=False)`.

    Args:
        fast: the tokenizer, of which `cuts_before_spaces` is true.
        separator: an added token that is matched whatever follows it, without a border (`has_border`).
        words_kept: how many words to remember from call to call.
    """

    def __init__(self, fast: FastTokenizer, separator: str, *, words_kept: int = WORDS_KEPT) -> None:
        self._fast, self._words_kept = fast, words_kept
        separator_id = fast.token_to_id(separator)
        assert separator_id is not None, f"{separator!r} is an added token"
        self._separator, self._separator_id = separator, separator_id
        self._openings: dict[str, list[int]] = {}
        self._words: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; a list of its own for each."""
        # The first word of a text stands behind no space; every other behind the one that it was cut at.
        cut = [_CUT(text) if _SPACE_IN_WHITE_SPACE(text) else text.split(" ") for text in texts]
        first_words = [words.pop(0) for words in cut]
        self._openings = self._with(self._openings, set(first_words), "")
        self._words = self._with(self._words, set(chain.from_iterable(cut)), " ")
        ids_of = self._words.__getitem__
        return [
            [*self._openings[first_word], *chain.from_iterable(map(ids_of, words))]
            for first_word, words in zip(first_words, cut, strict=True)
        ]

    def _with(self, memo: dict[str, list[int]], words: set[str], lead: str) -> dict[str, list[int]]:
        """The memo with the ids of these words behind `lead`; with these alone where it would grow beyond its bound."""
        missing = list(words.difference(memo))
        if len(memo) + len(missing) > self._words_kept:
            memo = {word: memo[word] for word in words if word in memo}
        memo.update(zip(missing, self._encode([lead + word for word in missing]), strict=True))
        return memo

    def _encode(self, words: list[str]) -> list[list[int]]:
        groups = [words[start : start + WORDS_TOGETHER] for start in range(0, len(words), WORDS_TOGETHER)]
        result: list[list[int]] = []
        for group, ids in zip(groups, self._encode_whole([*map(self._separator.join, groups)]), strict=True):
            parts = _parts(ids, self._separator_id)
            # Another added token may stand across a word's end and the beginning of the separator.
            result += parts if len(parts) == len(group) else self._encode_whole(group)
        return result

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._fast.encode_batch_fast(texts, add_special_tokens=False)]


def cuts_before_spaces(fast: FastTokenizer) -> bool:
    """Whether it is known of a tokenizer that it cuts every text before a space that follows anything else.

    Its added tokens are not looked at.
    """
    steps = _steps(fast.pre_tokenizer)
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return False
    normalizer, model = _state(fast.normalizer), fast.model
    if normalizer.get("type", "NFC") != "NFC" or not isinstance(model, BPE) or model.dropout:
        return False
    patterns = [_pattern(step) for step in steps[:-1]] + [GPT2_PATTERN] * steps[-1]["use_regex"]
    return CUTTING_PATTERNS.issuperset(set(patterns) - NARROW_PATTERNS) and not NARROW_PATTERNS.issuperset(patterns)


def has_border(text: str) -> bool:
    """Whether a text ends as it begins, so that it may be found across two of itself."""
    return any(text.endswith(text[:size]) for size in range(1, len(text)))


def _steps(pre_tokenizer: PreTokenizer | None) -> list[dict[str, Any]]:
    state = _state(pre_tokenizer)
    steps: list[dict[str, Any]] = state["pretokenizers"] if state.get("type") == "Sequence" else [state]
    return steps if state else []


def _state(component: PreTokenizer | Normalizer | None) -> dict[str, Any]:
    """What a tokenizer's file says of a part of it; empty where it has none."""
    state: dict[str, Any] = {} if component is None else json.loads(component.__getstate__())
    return state


def _pattern(step: dict[str, Any]) -> str | None:
    """The pattern by which a step cuts a text and keeps all of it; None for another kind of step."""
    if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
        return None
    pattern: str | None = step["pattern"].get("Regex")
    return pattern


def _parts(ids: list[int], separator_id: int) -> list[list[int]]:
    """The ids between the separators."""
    parts, start = [], 0
    for _ in range(ids.count(separator_id)):
        end = ids.index(separator_id, start)
        parts.append(ids[start:end])
        start = end + 1
    return [*parts, ids[start:]]
