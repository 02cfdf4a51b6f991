"""The language of replies by `py3langid`: one that was asked for, or that of the prompt."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import LanguageSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.packages import missing_package
from tutelage.curate.prose import is_json, is_mostly_code, is_program, without_code
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition, is_learned
from tutelage.types import Message

LEAST_LETTERS: Final = 20
"""Of prose. Below, any guess is as good as another."""
_NO_LANGUAGE: Final = frozenset({"zxx", "la"})
"""What the model says of text in no language, such as base64, and of *Lorem ipsum*."""
_SENTENCE_END: Final = re.compile(r"[\n.!?:;\"“”]+")
_UNSPACED: Final = 0x0E00
"""From Thai on, words of the list are looked for anywhere: those scripts have no spaces."""
_JUDGED: Final = 500
"""Letters that are judged, from the start of the prose: more cost time and change nothing."""


@dataclass(frozen=True, slots=True)
class Language:
    """Finds a reply in another language; says nothing of short texts, of code, and where the model is not sure.

    Args:
        settings: the languages; with none of them named, and `as_prompt` off, nothing is looked at.

    Raises:
        DependencyError: py3langid is not installed.
        ConfigError: it does not know one of the languages.
    """

    settings: LanguageSettings

    def __post_init__(self) -> None:
        if self.settings.languages or self.settings.as_prompt:
            check_languages(_identifier(), self.settings.languages)

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with as many characters as there have to be letters; none where no language is asked for."""
        is_asked = bool(self.settings.languages) or self.settings.as_prompt
        return chunk.learned.rows_of((chunk.learned.lengths >= LEAST_LETTERS) & is_asked)

    def __call__(self, row: RowTexts) -> str | None:
        """The language that was met, how sure that is, and the words."""
        if wanted := set(self.settings.languages):
            for text in row.learned:
                met = language_of(text, self.settings.confidence)
                if met is not None and met[0] not in wanted:
                    return _said(met, ", ".join(sorted(wanted)), text)
        elif self.settings.as_prompt:
            return self._unlike_prompt(row.conversation.messages)
        return None

    def _unlike_prompt(self, messages: Sequence[Message]) -> str | None:
        """A reply in another language than all turns before it, none of which asks for one."""
        before: list[str] = []
        asked: set[str] = set()
        for message in messages:
            if message.role != "assistant":
                before.append(message.content or "")
                if message.role == "user" and (met := language_of(before[-1], self.settings.confidence)):
                    asked.add(met[0])
            elif len(asked) == 1 and is_learned(message):
                text, (expected,) = message.content or "", asked
                met = language_of(text, self.settings.confidence)
                if met is not None and not is_close(met[0], expected) and not asks_for(met[0], before):
                    return _said(met, f"{expected}, as the prompt", text)
        return None


def _said(met: tuple[str, float], expected: str, text: str) -> str:
    return f"{met[0]} ({met[1]:.0%}), not {expected}: {excerpt(text)}"


def is_close(first: str, second: str) -> bool:
    """Whether two languages are the same, or so alike that the model takes one for the other."""
    return first == second or any(first in group and second in group for group in _table()["close"])


def asks_for(language: str, prompts: Sequence[str]) -> bool:
    """Whether prompts ask for a translation, name a language, or have a sentence in it themselves."""
    said = "\n".join(prompts).casefold()
    if _asking(language).search(said) is not None:
        return True
    sentences = {sentence.strip() for sentence in _SENTENCE_END.split(said)}
    return any((met := language_of(sentence, 0.5)) is not None and met[0] == language for sentence in sentences)


def language_of(text: str, confidence: float) -> tuple[str, float] | None:
    """ISO 639-1 code and probability; None where there are too few letters, too much code, or too little confidence."""
    if is_json(text):
        return None
    prose = " ".join(without_code(text).split())[:_JUDGED]
    if sum(map(str.isalpha, prose)) < LEAST_LETTERS or is_mostly_code(prose) or is_program(text):
        return None
    code, probability = _identifier().classify(prose)
    return (str(code), float(probability)) if probability >= confidence and code not in _NO_LANGUAGE else None


def check_languages(identifier: Any, languages: list[str]) -> None:
    """Hold the settings against the languages that the model knows.

    Raises:
        ConfigError: it does not know one of them.
    """
    from tutelage.errors import ConfigError

    for language in languages:
        if language not in identifier.labels:
            raise ConfigError(
                f"The language {language!r} is not known",
                where="curate.quality.language.languages",
                found=language,
                expected=f"ISO 639-1 codes such as {', '.join(sorted(identifier.labels)[:12])}",
                fix="write the code of two letters",
            )


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "language_names.toml").read_text(encoding="utf-8"))


@cache
def _asking(language: str) -> re.Pattern[str]:
    """Words that ask for a translation, or for this language by its name."""
    words = [*_table()["translation"], *_table()["names"].get(language, ())]
    spaced = "|".join(re.escape(word) for word in words if ord(word[0]) < _UNSPACED)
    unspaced = "|".join(re.escape(word) for word in words if ord(word[0]) >= _UNSPACED)
    return re.compile(rf"\b(?:{spaced})|{unspaced}" if unspaced else rf"\b(?:{spaced})")


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        setting = "curate.quality.language"
        raise missing_package("py3langid", setting, error, f'{setting}.action="off"') from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


LANGUAGE = RuleDefinition("language", "a reply in another language than was asked for", Language)
