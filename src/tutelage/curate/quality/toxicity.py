"""Words that a packaged list calls profane. A list knows words, not what is said with them, so it is off by default."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tutelage.config.curation_quality import ToxicitySettings
from tutelage.curate.packages import missing_package
from tutelage.curate.quality.rule import RowTexts, RuleDefinition
from tutelage.curate.texts import words
from tutelage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Toxicity:
    """Finds listed words in what is learned.

    Args:
        settings: which lists, how many different words drop a row, and words that are no offense here.

    Raises:
        DependencyError: glin-profanity, which has the lists, is not installed.
        ConfigError: it has no list of a language.
    """

    settings: ToxicitySettings

    def __post_init__(self) -> None:
        self._words()

    def __call__(self, row: RowTexts) -> str | None:
        """How many different words were met; each is shown by its first letter."""
        single, phrases = self._words()
        met: set[str] = set()
        for text in row.learned:
            met |= single.intersection(words(text))
            lowered = text.lower()
            met.update(phrase for phrase in phrases if phrase in lowered)
        if len(met) < self.settings.least_words:
            return None
        veiled = (word[0] + "*" * (len(word) - 1) for word in sorted(met)[:5])
        return f"{len(met)} listed words: {', '.join(veiled)}"

    def _words(self) -> tuple[frozenset[str], tuple[str, ...]]:
        return _listed(tuple(self.settings.languages), tuple(self.settings.allowed))


@cache
def _listed(languages: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Listed single words, and what is looked for anywhere: phrases, and words of scripts without spaces."""
    try:
        from glin_profanity.data.dictionary import DictionaryLoader
    except ImportError as error:
        setting = "curate.quality.toxicity"
        raise missing_package("glin-profanity", setting, error, f'{setting}.action="off"') from error
    loader = DictionaryLoader()
    listed: set[str] = set()
    for language in languages:
        found = loader.get_words(language)
        if not found:
            raise ConfigError(
                f"There is no list of words of the language {language!r}",
                where="curate.quality.toxicity.languages",
                found=language,
                expected=", ".join(loader.available_languages),
                fix="name one of these",
            )
        listed.update(word.lower() for word in found if len(word) > 1)
    listed.difference_update(word.lower() for word in allowed)
    single = frozenset(word for word in listed if words(word) == [word])
    return single, tuple(sorted(listed - single))


TOXICITY = RuleDefinition("toxicity", "words of a packaged list of profanity", Toxicity)
