"""Checkpoint folders for a template and a tokenizer: what a loader needs, without weights.

The control tokens of a template are found by the spellings in common use, in its source and in what it renders; they
become special tokens. Tags that models write as ordinary text (`<think>`, `<tool_call>`) stay ordinary, except in
the second tokenizer, where they are added tokens that are not special, as several published models have them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

BOS, EOS = "<s>", "</s>"
"""`bos_token` and `eos_token` in every folder."""

CONTROL = re.compile(
    r"<\|[^|<>\s]{1,60}\|>"  # <|im_start|>
    r"|<｜[^｜<>]{1,60}｜>"
    r"|\[\|[^|\[\]\s]{1,60}\|\]"  # [|assistant|]
    r"|<\|[a-z_\"]{1,30}>|<[a-z_\"]{1,30}\|>"  # <|turn> ... <turn|>
    r"|</?(?:s|bos|eos|pad|unk|BOS|EOS|PAD|UNK)>"
    r"|\[/?[A-Z][A-Z_]{2,24}\]"  # [INST]
    r"|</?(?:start|end|begin|beginning)_of_[a-z_]{2,24}>"
    r"|<(?:unused|extra_id_|reserved_)[0-9]{1,4}>"
    r"|<_[a-z]{2,16}>|<#[a-z]{2,16}#>"
)
ORDINARY_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@dataclass(frozen=True, slots=True)
class BaseTokenizer:
    """A published vocabulary, before a template's control tokens are added."""

    name: str
    path: Path
    tags_are_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder and what was put into it."""

    folder: Path
    tokenizer: FastTokenizer
    stop_ids: frozenset[int]
    control_tokens: tuple[str, ...]


def control_tokens_in(text: str) -> tuple[str, ...]:
    """Control tokens spelled in a text, each once, in order."""
    return tuple(dict.fromkeys(found.group() for found in CONTROL.finditer(text)))


def literals_of(template: str) -> str:
    """What a template may write of its own: its plain text and string literals, one a line.

    A text that does not parse is taken whole.
    """
    environment = jinja2.Environment()
    try:
        tokens = list(environment.lex(template))
    except jinja2.TemplateSyntaxError:
        return template
    parts = [text for _, kind, text in tokens if kind == "data"]
    for _, kind, text in tokens:
        if kind == "string":
            parts.append(text[1:-1].replace("\\n", "\n"))
    return "\n".join(parts)


def write_checkpoint(
    folder: Path, base: BaseTokenizer, template: str, *, control: tuple[str, ...], stops: tuple[str, ...]
) -> Checkpoint:
    """Write tokenizer.json, the settings beside it and the template.

    Args:
        folder: made if missing.
        base: the vocabulary.
        template: the chat template's text.
        control: control tokens, added as special tokens where the vocabulary lacks them.
        stops: what ends a generation; EOS is one of them.
    """
    tokenizer = FastTokenizer.from_file(str(base.path))
    special = tuple(dict.fromkeys((*control, BOS, EOS)))
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    if base.tags_are_tokens:
        tokenizer.add_tokens(
            [AddedToken(ordinary_tag, special=False, normalized=False) for ordinary_tag in ORDINARY_TAGS]
        )
    stop_ids = [_id(tokenizer, stop) for stop in stops]
    size = tokenizer.get_vocab_size()
    size = max(size, 1 + max(tokenizer.get_added_tokens_decoder(), default=0))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "bos_token": BOS,
        "eos_token": EOS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, value in (
        ("tokenizer_config.json", settings),
        ("config.json", {"model_type": "llama", "vocab_size": size, "eos_token_id": _id(tokenizer, EOS)}),
        ("generation_config.json", {"eos_token_id": stop_ids}),
    ):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return Checkpoint(folder, tokenizer, frozenset(stop_ids), special)


def _id(tokenizer: FastTokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None, f"{token} was not added"
    return int(number)
