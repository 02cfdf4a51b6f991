"""A tokenizer.json as the vocabulary of a GGUF file: tokens, kinds, scores or merges, and how text is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gguf import GGUFWriter, TokenType

from tutelage.errors import DataError
from tutelage.export.gguf.family import SAFETENSORS_STAY
from tutelage.export.gguf.pre_tokenizer import pre_tokenizer_name
from tutelage.model.gguf_tokenizer import SPACE
from tutelage.render.tokenizer import Tokenizer

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
NEEDED_TO_SWALLOW = ("<unk>", "<s>", "</s>", "<|endoftext|>")
"""llama.cpp looks these up where control tokens swallow white space, and loads nothing without them."""
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0
"""What sentencepiece vocabularies in GGUF carry for tokens that no merge makes. Source: conversion/base.py of
llama.cpp."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF file holds of a tokenizer.

    Attributes:
        model: "gpt2" for byte-level merges, "llama" for sentencepiece.
        pre: name of the way to cut.
        tokens: one a row of the embedding.
        types: of each token.
        scores: of each, sentencepiece only.
        merges: byte-level only.
        space_before: whether a text begins with a space that is not there; sentencepiece only.
        plain_start: whether that is so only at the very start of a text, which llama.cpp does not do.
        swallows: control tokens swallow the white space after them.
        notes: what is not as in the tokenizer, for people.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float] | None = None
    merges: list[str] | None = None
    space_before: bool | None = None
    plain_start: bool = False
    swallows: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, writer: GGUFWriter) -> None:
        """Write it, without special tokens and template."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.space_before is not None:
            writer.add_add_space_prefix(self.space_before)


def vocabulary_of(tokenizer: Tokenizer, rows: int) -> Vocabulary:
    """The vocabulary for a file whose embedding has `rows` rows.

    Raises:
        DataError: the tokenizer is of a kind that llama.cpp does not have, or none whose ids are known.
    """
    description = json.loads(tokenizer.fast.to_str())
    where = str(tokenizer.folder / "tokenizer.json")
    model = description["model"]
    if model.get("type") != "BPE":
        raise _unknown_kind(where, f"a tokenizer of kind {model.get('type')}")
    added = {entry["id"]: entry for entry in description.get("added_tokens", [])}
    swallowing = [entry for entry in added.values() if entry.get("rstrip")]
    if swallowing and any(tokenizer.fast.token_to_id(token) is None for token in NEEDED_TO_SWALLOW):
        raise _unknown_kind(where, f"added tokens that swallow the white space after them: {swallowing[0]['content']}")
    notes = _beyond_rows(tokenizer, rows)
    if any(entry.get("lstrip") for entry in added.values() if not entry.get("rstrip")):
        notes.append("llama.cpp does not swallow the white space before an added token, as this tokenizer does")
    if _is_sentencepiece(model):
        before, plain_start = _space_before(description, where)
        tokens, types = _tokens(tokenizer, added, rows, sentencepiece=True)
        return Vocabulary("llama", "default", tokens, types, scores=_scores(tokens, types, model),
                          space_before=before, plain_start=plain_start,
                          swallows=bool(swallowing), notes=notes)  # fmt: skip
    pre = pre_tokenizer_name(description, where)
    normalizer = description.get("normalizer")
    if normalizer is not None:
        if normalizer.get("type") not in ("NFC", "NFKC", "NFD", "NFKD"):
            raise _unknown_kind(where, f"a normalizer of kind {normalizer.get('type')}")
        notes.append(
            f"the tokenizer brings text into {normalizer['type']} and llama.cpp does not: text in another form "
            "gets other ids"
        )
    tokens, types = _tokens(tokenizer, added, rows, sentencepiece=False)
    merges = [" ".join(part.replace(" ", "\u0120") for part in _pair(merge)) for merge in model["merges"]]
    return Vocabulary("gpt2", pre, tokens, types, merges=merges, swallows=bool(swallowing), notes=notes)


def _tokens(
    tokenizer: Tokenizer, added: Mapping[int, Mapping[str, Any]], rows: int, *, sentencepiece: bool
) -> tuple[list[str], list[TokenType]]:
    unknown = tokenizer.named_tokens.get("unk_token") if sentencepiece else None
    spelled = {index: token for token, index in tokenizer.fast.get_vocab(with_added_tokens=True).items()}
    tokens: list[str] = []
    types: list[TokenType] = []
    for index in range(rows):
        entry = added.get(index)
        if entry is not None:
            text, kind = str(entry["content"]), TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
            if sentencepiece and not entry["special"]:
                text = text.replace(SPACE, " ")  # llama.cpp compares with the text before spaces are written so
        elif index in spelled:
            text, kind = spelled[index], TokenType.NORMAL
            if sentencepiece and BYTE.fullmatch(text):
                kind = TokenType.BYTE
        else:
            text, kind = f"[PAD{index}]", TokenType.UNUSED
        if sentencepiece and text == unknown:
            kind = TokenType.UNKNOWN
        tokens.append(text)
        types.append(kind)
    return tokens, types


def _scores(tokens: Sequence[str], types: Sequence[TokenType], model: Mapping[str, Any]) -> list[float]:
    """llama.cpp merges the pair with the highest score first; the order of the merges says which that is."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        first.setdefault("".join(_pair(merge)), rank)
    last = len(first)
    ordinary = [index for index, kind in enumerate(types) if kind == TokenType.NORMAL]
    ordinary.sort(key=lambda index: (first.get(tokens[index], last), index))
    scores = [{TokenType.UNUSED: PADDING_SCORE, TokenType.BYTE: 0.0}.get(kind, ADDED_SCORE) for kind in types]
    for place, index in enumerate(ordinary):
        scores[index] = -float(place)
    return scores


def _is_sentencepiece(model: Mapping[str, Any]) -> bool:
    return bool(model.get("byte_fallback")) and "<0x0A>" in model["vocab"]


def _space_before(description: Mapping[str, Any], where: str) -> tuple[bool, bool]:
    """Whether a space is put before a text, and whether only before the very first part of it."""
    before, plain_start = False, False
    for part in _parts(description.get("normalizer"), "normalizers"):
        if part["type"] == "Prepend" and part.get("prepend") == SPACE:
            before = True
        elif not (part["type"] == "Replace" and part.get("content") == SPACE):
            raise _unknown_kind(where, f"a normalizer of kind {part['type']}")
    for part in _parts(description.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace":
            scheme = part.get("prepend_scheme", "always")
            before, plain_start = scheme == "always", scheme == "first"
        elif part["type"] != "Split":  # on spaces, which the normalizer has taken away
            raise _unknown_kind(where, f"a pre-tokenizer of kind {part['type']}")
    return before, plain_start


def _parts(part: Any, inner: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _pair(merge: Any) -> list[str]:
    return list(merge.split(" ")) if isinstance(merge, str) else list(merge)


def _beyond_rows(tokenizer: Tokenizer, rows: int) -> list[str]:
    beyond = sorted(token for token, index in tokenizer.fast.get_vocab(with_added_tokens=True).items() if index >= rows)
    if not beyond:
        return []
    return [f"{len(beyond)} tokens have no row in the embedding and are left out: {', '.join(beyond[:5])}"]


def _unknown_kind(where: str, found: str) -> DataError:
    return DataError(
        "llama.cpp has no tokenizer that cuts a text as this one does",
        where=where,
        found=found,
        expected="byte-level BPE, or a sentencepiece BPE with bytes",
        fix=SAFETENSORS_STAY,
    )
