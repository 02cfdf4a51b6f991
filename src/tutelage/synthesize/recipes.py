"""What each generator asks and how: the texts and numbers of `prompts.toml`, and the form of examples."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from tutelage.synthesize.filters import RULES
from tutelage.synthesize.generator import Sampling
from tutelage.synthesize.parsing import END_MARK, NO_INPUT
from tutelage.system.chat_endpoint import ChatMessage

PROMPTS = "prompts.toml"


@cache
def recipe(name: str) -> Mapping[str, Any]:
    """The table of a generator."""
    tables = tomllib.loads((files(__package__) / PROMPTS).read_text(encoding="utf-8"))
    table: Mapping[str, Any] = tables[name]
    return table


def rules_sha256() -> str:
    """Of the texts and numbers that decide what is asked and what is taken."""
    content = b"".join((files(__package__) / name).read_bytes() for name in (PROMPTS, RULES))
    return hashlib.sha256(content).hexdigest()


def sampling_of(table: Mapping[str, Any]) -> Sampling:
    """How tokens are drawn, as a table says."""
    return Sampling(**table)


def user_turn(template: str, **filled: object) -> tuple[ChatMessage, ...]:
    """A prompt of one turn. What is filled in is never looked at for braces."""
    return ({"role": "user", "content": template.strip().format(**filled)},)


def shown_item(number: int, parts: Sequence[tuple[str, str]]) -> str:
    """One example in the form that is asked for, an empty part as none."""
    lines = [f"{number}. {name}: {text or NO_INPUT}" for name, text in parts]
    return "\n".join([*lines, END_MARK])
