"""The language of replies by `py3langid`: one that was asked for, or that of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import LanguageSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.packages import missing_package
from tutelage.curate.prose import is_json, is_mostly_code, is_program, without_code
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition

LEAST_LETTERS: Final = 20
"""Of prose. Below, any guess is as good as another."""
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
        wanted = set(self.settings.languages)
        if not wanted and not self.settings.as_prompt:
            return None
        for text in row.learned:
            met = language_of(text, self.settings.confidence)
            if met is None or met[0] in wanted:
                continue
            asked = None if wanted else language_of(row.prompt, self.settings.confidence)
            if wanted or (asked is not None and asked[0] != met[0]):
                expected = ", ".join(sorted(wanted)) if wanted else f"{asked[0]}, as the prompt" if asked else ""
                return f"{met[0]} ({met[1]:.0%}), not {expected}: {excerpt(text)}"
        return None


def language_of(text: str, confidence: float) -> tuple[str, float] | None:
    """ISO 639-1 code and probability; None where there are too few letters, too much code, or too little confidence."""
    if is_json(text):
        return None
    prose = " ".join(without_code(text).split())[:_JUDGED]
    if sum(map(str.isalpha, prose)) < LEAST_LETTERS or is_mostly_code(prose) or is_program(text):
        return None
    code, probability = _identifier().classify(prose)
    return (str(code), float(probability)) if probability >= confidence else None


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
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        setting = "curate.quality.language"
        raise missing_package("py3langid", setting, error, f'{setting}.action="off"') from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


LANGUAGE = RuleDefinition("language", "a reply in another language than was asked for", Language)
