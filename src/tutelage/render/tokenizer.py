"""The tokenizer of a checkpoint, read from its folder: ids, text, special tokens, and what ends a generation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from tutelage.errors import DataError
from tutelage.formats.rawrow import has_surrogate
from tutelage.render.segment_cache import SegmentEncoder

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with the facts that training needs.

    Attributes:
        fast: the tokenizers library's object.
        named_tokens: `bos_token`, `eos_token`, ... as templates expect them.
        stop_ids: ids that end a generation when the model is served, from the generation settings when there are any.
        vocabulary_size: rows of the model's embedding; ids at or above it cannot be trained.
        templates: the checkpoint's own chat templates (Jinja) by name; `default` serves, and `tool_use`, where there is
            one, serves requests with tools.
        folder: where it was read from.
    """

    fast: FastTokenizer
    named_tokens: dict[str, str]
    stop_ids: frozenset[int]
    vocabulary_size: int
    templates: Mapping[str, str]
    folder: Path

    @classmethod
    def load(cls, source: Path, *, stop_tokens: Sequence[str] = ()) -> Tokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and the model's settings.

        Args:
            source: the folder that holds them; or the tokenizer's file alone, under any name.
            stop_tokens: what ends a generation where no file says so.

        Raises:
            DataError: a file is damaged, or nothing says which token ends a generation.
        """
        is_single_file = source.is_file()
        path = source if is_single_file else source / "tokenizer.json"
        folder = (
            source.with_suffix("") if is_single_file else source
        )  # beside a file alone lies nothing that belongs to it
        try:
            fast = FastTokenizer.from_file(str(path))
        except Exception as error:
            raise DataError(
                "The tokenizer cannot be read",
                where=str(path),
                found=str(error),
                expected="a tokenizer.json of the tokenizers library",
                fix="save it again: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
            ) from error
        fast.no_padding()  # what a training script once saved must not pad or cut what a server would feed
        fast.no_truncation()
        settings = read_object(folder / "tokenizer_config.json")
        named_tokens = _named_tokens(settings, read_object(folder / "special_tokens_map.json"))
        model = read_object(folder / "config.json")
        stop_ids = _stop_ids(fast, named_tokens, folder)
        if not stop_ids:
            stop_ids = frozenset(token_id for token_id in map(fast.token_to_id, stop_tokens) if token_id is not None)
        if not stop_ids:
            raise DataError(
                "Nothing says which token ends a generation",
                where=str(folder),
                expected="eos_token_id in generation_config.json or config.json, or eos_token in tokenizer_config.json",
                fix="add eos_token_id to generation_config.json, or name the token with render.stop_tokens",
            )
        size = _vocabulary_size(fast, model, folder / "config.json")
        return cls(fast, named_tokens, stop_ids, size, _chat_templates(folder, settings), folder)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens recognized, nothing added (templates write their own BOS)."""
        return self._segments.encode(texts)

    @cached_property
    def _segments(self) -> SegmentEncoder:
        return SegmentEncoder(self.fast)

    def encode_document(self, text: str) -> list[int]:
        """Ids of a plain document, with whatever the tokenizer itself puts around one (BOS for many)."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=True).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens spelled out."""
        text: str = self.fast.decode(list(ids), skip_special_tokens=False)
        return text

    def decode_all(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each of many lists of ids, special tokens spelled out."""
        texts: list[str] = self.fast.decode_batch([list(sequence) for sequence in sequences], skip_special_tokens=False)
        return texts

    @property
    def stop_id(self) -> int:
        """The stop token to append where none is written: the tokenizer's own end token if it is one."""
        eos = self.fast.token_to_id(self.named_tokens.get("eos_token", ""))
        return eos if eos in self.stop_ids else min(self.stop_ids)

    def stop_pattern(self) -> re.Pattern[str]:
        """A pattern that finds any stop token in a text."""
        spellings = sorted((self.spelling(stop_token_id) for stop_token_id in self.stop_ids), key=len, reverse=True)
        return re.compile("|".join(re.escape(spelling) for spelling in spellings if spelling) or r"(?!)")

    def stop_tokens_text(self) -> str:
        """The stop tokens, for people."""
        return ", ".join(repr(self.spelling(stop_token_id)) for stop_token_id in sorted(self.stop_ids))

    def spelling(self, token: int) -> str:
        """The text that stands for `token`: decoders write some special tokens otherwise."""
        added = self._added_tokens.get(token)
        return self.decode([token]) if added is None else added

    def spell(self, ids: Sequence[int]) -> str:
        """The text of `ids`, part by part: added tokens as they are spelled, what stands between them decoded alone.

        The inverse of an encoding that cuts a text at its added tokens and begins each part anew, as tokenizers of the
        Llama kind do, which put a space before the first character of every part.
        """
        parts: list[str] = []
        run: list[int] = []
        for token_id in ids:
            if token_id in self._added_tokens:
                parts += [self.decode(run), self._added_tokens[token_id]]
                run = []
            else:
                run.append(token_id)
        return "".join([*parts, self.decode(run)])

    @cached_property
    def _added_tokens(self) -> dict[int, str]:
        return {index: token.content for index, token in self.fast.get_added_tokens_decoder().items()}

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens by their text: those that text from a user must not be able to spell."""
        return {token.content: index for index, token in self.fast.get_added_tokens_decoder().items() if token.special}

    def with_special(self, ids: Collection[int]) -> Tokenizer:
        """The tokenizer in which the added tokens among `ids` are special; itself where they are."""
        added = self.fast.get_added_tokens_decoder()
        plain = [added[token_id] for token_id in ids if token_id in added and not added[token_id].special]
        if not plain:
            return self
        fast = FastTokenizer.from_str(self.fast.to_str())
        # The same id again: the library replaces what it knows of a token of that text.
        fast.add_special_tokens([AddedToken(token.content, **_matching(token), special=True) for token in plain])
        return replace(self, fast=fast)

    def special_token_pattern(self) -> re.Pattern[str] | None:
        """A pattern that finds any special token in a text; None when there are none."""
        spellings = sorted((spelling for spelling in self.special_tokens if spelling.strip()), key=len, reverse=True)
        if not spellings:
            return None
        # Hundreds of reserved tokens start alike: testing the first character spares trying each at every place.
        first_characters = "".join(sorted({re.escape(spelling[0]) for spelling in spellings}))
        return re.compile(f"(?=[{first_characters}])(?:{'|'.join(re.escape(spelling) for spelling in spellings)})")

    @property
    def template(self) -> str | None:
        """The chat template that serves; None when the checkpoint has none, or several and no default."""
        return self.templates.get("default")

    def sha256(self) -> str:
        """Hash of the tokenizer's own serialization."""
        return hashlib.sha256(self.fast.to_str().encode()).hexdigest()


def _matching(token: AddedToken) -> dict[str, bool]:
    """How an added token is found in a text."""
    return {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder; empty where there is no such file.

    Raises:
        DataError: it holds something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"{type(value).__name__}, not an object")
    if has_surrogate(value):
        raise _damaged(path, "half of a surrogate pair (\\ud800 to \\udfff alone), which is no text")
    return value


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path.name} is damaged", where=str(path), found=problem, fix="restore the file from its source")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"text that is not UTF-8: {error}") from error


def _vocabulary_size(fast: FastTokenizer, model: dict[str, Any], path: Path) -> int:
    size = model.get("vocab_size")
    if size is None:
        return int(fast.get_vocab_size())
    if type(size) is not int or size < 1:
        raise _damaged(path, f"vocab_size = {size!r}, not a whole number above 0")
    return size


def _named_tokens(*sources: dict[str, Any]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name in NAMED_TOKENS:
        for source in sources:
            value = source.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and name not in tokens:
                tokens[name] = text
    return tokens


def _stop_ids(fast: FastTokenizer, named_tokens: dict[str, str], folder: Path) -> frozenset[int]:
    """Generation settings first: they are what a server stops on. The tokenizer's EOS is the last resort."""
    for path in (folder / "generation_config.json", folder / "config.json"):
        value = read_object(path).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
            raise _damaged(path, f"eos_token_id = {json.dumps(value)}, not a token's id or a list of them")
        if ids:
            return frozenset(ids)
    eos = fast.token_to_id(named_tokens["eos_token"]) if "eos_token" in named_tokens else None
    return frozenset() if eos is None else frozenset({eos})


def _chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    path = folder / "chat_template.jinja"
    if path.is_file():
        others = {
            path.stem: _read_text(path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
        }
        return {"default": _read_text(path)} | others
    value = settings.get("chat_template")
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict)]
        if not all(isinstance(entry.get(key), str) for entry in named for key in ("name", "template")):
            raise _damaged(folder / "tokenizer_config.json", "a chat_template without a name or without its text")
        return {entry["name"]: entry["template"] for entry in named}
    return {"default": value} if isinstance(value, str) else {}
