"""Replies in which a model speaks of itself in place of the answer, or refuses; sentences are in `refusals.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import RefusalSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.curate.screens import SPACE, any_of

_BEGINNING: Final = 300
"""Characters at the start of a reply in which a refusal is looked for: one or two sentences."""
_ASKED_ABOUT_ITSELF: Final = re.compile(
    r"\b(?:are you|who (?:are|made|built|created|trained|developed) you|your"
    r" (?:name|feelings?|opinions?|purpose|creator)"
    r"|do you (?:have|feel|think|dream|want|like|sleep|eat|go by)|can you (?:feel|think|see|hear|browse|access)"
    r"|yourself|who you are|about you|call you|address you|know you)\b"
    r"|\b(?:chatgpt|openai|language models?|bist du|wer bist|qui es-tu|eres t[uú]|你是)",
    re.IGNORECASE,
)
_STRAIGHT: Final = (("’", "'"), ("“", '"'), ("”", '"'), ("–", "-"), ("—", "-"), ("…", "."))
"""Marks of typesetters and of keyboards; a text without the former has a byte a character, and is searched faster."""
_QUOTES: Final = frozenset("\"“”„«»'‘’「『")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Finds boilerplate anywhere in a reply, and a refusal at its beginning.

    Left alone are sentences in quotes or backticks, what a model says of itself when it was asked about itself, and
    rows that offer tools: there it is right to say that none of them fits.
    """

    settings: RefusalSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a sign of boilerplate, or the beginning of a refusal; those too that code may hide it in."""
        lowered = chunk.learned.changed(_lowered)
        return lowered.rows_with(_sentences(tuple(self.settings.languages)).screen)

    def __call__(self, row: RowTexts) -> str | None:
        """The sentence, and whether it is boilerplate or a refusal."""
        if row.conversation.tools:
            return None
        sentences = _sentences(tuple(self.settings.languages))
        for prose in row.prose[: len(row.replies)]:
            lowered = _lowered(prose.strip())
            if sentences.refusal.match(lowered, 0, _BEGINNING) is not None:
                return f"a refusal: {excerpt(prose.strip())}"
            met = next(sentences.boilerplate_in(lowered), None)
            if met is None or (met.start() and lowered[met.start() - 1] in _QUOTES):
                continue
            if not _ASKED_ABOUT_ITSELF.search(row.prompt):
                return f"boilerplate: {excerpt(prose.strip(), met.start())}"
        return None


def _lowered(text: str) -> str:
    """A text in small letters and with the marks of keyboards."""
    if not text.isascii():
        for typographic, straight in _STRAIGHT:
            text = text.replace(typographic, straight)
    return text.lower()


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of some languages, for texts in small letters.

    Attributes:
        refusal: what a reply begins with.
        boilerplate: for each language the texts without one of which no sentence of it can be there, and the sentences.
        screen: what every text has that one of them is in, or that has code, as a pattern of `screens`.
    """

    refusal: re.Pattern[str]
    boilerplate: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]
    screen: str

    def boilerplate_in(self, lowered: str) -> Iterator[re.Match[str]]:
        """The first sentence of each language that is in a text."""
        for signs, pattern in self.boilerplate:
            if any(sign in lowered for sign in signs) and (met := pattern.search(lowered)) is not None:
                yield met


def known_languages() -> tuple[str, ...]:
    """The ISO 639-1 codes of the languages that have sentences."""
    return tuple(_table())


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((files(__package__) / "refusals.toml").read_text(encoding="utf-8"))


@cache
def _sentences(languages: tuple[str, ...]) -> Sentences:
    tables = [_table()[language] for language in languages or known_languages()]
    refusal = "|".join(pattern for table in tables for pattern in table["refusal"])
    greeting = r"(?:(?:oh|hello|hi|hey|dear|thank you|thanks)\b[^.!?\n]{0,40}[,.!]\s*)?"
    boilerplate = (
        (tuple(table["signs"]), re.compile(rf"(?<!\w)(?:{'|'.join(table['boilerplate'])})")) for table in tables
    )
    opening = f"{greeting}(?:{refusal})"
    signs = any_of(sign for table in tables for sign in table["signs"])
    wide = opening.replace(r"\b", "").replace(r"\s", f"[{SPACE}]")  # both know ASCII alone in RE2
    wide = re.sub(r"\{0,\d+\}", "*", wide)  # a count makes RE2's automaton large, and slow to make
    return Sentences(re.compile(opening), tuple(boilerplate), rf"\A[{SPACE}]*{wide}|{signs}|`|~~~")


REFUSAL = RuleDefinition("refusal", "a model that refuses, or speaks of itself in place of the answer", Refusal)
