"""Words that stand where nothing, or somebody's own words, should: `No input`, `{{name}}`, `[Your Name]`."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final

from tutelage.curate.prose import outside_backticks
from tutelage.curate.screens import any_of
from tutelage.types import Conversation

_SLOT: Final = re.compile(r"(?<![\w\\^{}_$])\{\{\s*[A-Za-z_][\w.]*(?:[ -]\w+){0,3}\s*\}\}(?!\})")
"""A variable of a template language, with nothing that LaTeX or a format string has around it."""
_TALKS_OF_TEMPLATES: Final = re.compile(
    r"\{\{|\{%|jinja|handlebars|mustache|vue|angular|liquid|templat|placeholder|variable", re.IGNORECASE
)


def without_empty_input(text: str) -> str:
    """A prompt without a last paragraph that only says that there is no input; a prompt that is nothing else stays."""
    body, separator, last = text.rstrip().rpartition("\n\n")
    if not separator or len(last) > 24 or not body.strip():
        return text
    return body if last.strip().rstrip(".").casefold() in _facts("no_input") else text


def unfilled_variable(conversation: Conversation) -> str | None:
    """The first `{{variable}}` in a reply that was never filled in; None where the row is about templates, or code."""
    for message in conversation.messages:
        if message.role == "assistant" and message.content and "{{" in message.content:
            match = _SLOT.search(outside_backticks(message.content))
            if match and not any(
                _TALKS_OF_TEMPLATES.search(other.content or "")
                for other in conversation.messages
                if other.role in ("system", "user")
            ):
                return match.group()
    return None


def bracket_slot(text: str) -> str | None:
    """The first `[Your Name]` or its kind in a reply; a link, `[name](...)`, is none."""
    if "[" not in text:
        return None
    match = _bracket().search(text)
    return None if match is None else match.group()


@cache
def may_have_placeholders() -> str:
    """What every text of ASCII has that any of them stands in, as a pattern of `screens`."""
    no_input, slots = (any_of(sorted(_facts(name))) for name in ("no_input", "slots"))
    return rf"\n\n\s*(?i:{no_input})\.*\s*\z|\{{\{{|\[(?i:{slots})\]"


@cache
def _facts(name: str) -> frozenset[str]:
    return frozenset(tomllib.loads((files(__package__) / "placeholders.toml").read_text(encoding="utf-8"))[name])


@cache
def _bracket() -> re.Pattern[str]:
    slots = "|".join(map(re.escape, sorted(_facts("slots"), key=lambda slot: (-len(slot), slot))))
    return re.compile(rf"\[(?:{slots})\](?![(\[:])", re.IGNORECASE)
