"""Which language a text is in: the script of its letters, then function words, own letters, endings and beginnings.

No package and no trained model: what it gets right, beside three packages, is in docs/evaluate.md.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import AfterValidator

from tutelage.evaluate.instructions.instruction import Instruction

_SHORTEST_STEM = 2
"""Letters that a word must have beside an ending or a beginning for it to count."""

_AFFIX_WEIGHT = 0.4
"""Of a word that only ends or begins as those of a language do, against 1 of a function word; chosen on own texts."""


@dataclass(frozen=True, slots=True)
class _Language:
    code: str
    words: frozenset[str]
    letters: frozenset[str]
    endings: tuple[str, ...]
    beginnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Languages:
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    scripts: tuple[str, ...]
    by_script: dict[str, tuple[_Language, ...]]

    def script_of(self, character: str) -> str | None:
        """The script of a character; None for those of none here, as digits and signs."""
        at = bisect_right(self.starts, ord(character)) - 1
        return self.scripts[at] if at >= 0 and ord(character) <= self.ends[at] else None


@cache
def _languages() -> _Languages:
    table = tomllib.loads((files(__package__) / "languages.toml").read_text(encoding="utf-8"))
    ranges = sorted(
        (*(int(end, 16) for end in block.split("-")), script)
        for script, blocks in table["scripts"].items()
        for block in blocks
    )
    by_script: dict[str, tuple[_Language, ...]] = {}
    for code, facts in table["languages"].items():
        language = _Language(
            code,
            frozenset(facts.get("words", "").split()),
            frozenset(facts.get("letters", "")),
            tuple(facts.get("endings", "").split()),
            tuple(facts.get("beginnings", "").split()),
        )
        by_script[facts["script"]] = (*by_script.get(facts["script"], ()), language)
    starts, ends, scripts = zip(*ranges, strict=True)
    return _Languages(starts, ends, scripts, by_script)


def known_languages() -> tuple[str, ...]:
    """The ISO 639-1 codes of the languages that `language_of` can name, sorted."""
    return tuple(sorted(language.code for group in _languages().by_script.values() for language in group))


def function_words(code: str) -> frozenset[str]:
    """The function words by which a language is told, in small letters."""
    groups = _languages().by_script.values()
    return next(language.words for group in groups for language in group if language.code == code)


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of the language that most of `text` is in; None where nothing decides."""
    likeliest = likeliest_languages(text)
    return likeliest[0] if len(likeliest) == 1 else None


def likeliest_languages(text: str) -> tuple[str, ...]:
    """The languages for which most in `text` speaks: all of its script where nothing does, none without letters."""
    text = unicodedata.normalize("NFC", text.lower())
    languages = _languages()
    letters = Counter(
        script
        for character in text
        if unicodedata.category(character)[0] in "LM" and (script := languages.script_of(character)) is not None
    )
    if letters["kana"]:  # Japanese writes its stems in Han characters
        letters["kana"] += letters.pop("han", 0)
    if not letters:
        return ()
    candidates = languages.by_script[letters.most_common(1)[0][0]]
    scores = _scores(text, candidates)
    highest = max(scores.values())
    return tuple(code for code, score in scores.items() if score == highest)


def _scores(text: str, candidates: tuple[_Language, ...]) -> dict[str, float]:
    """What speaks for each; what speaks for several counts for each in part."""
    scores = dict.fromkeys((language.code for language in candidates), 0.0)
    for word in _words(text):
        for matches, weight in (
            ([language.code for language in candidates if word in language.words], 1.0),
            ([language.code for language in candidates if not language.letters.isdisjoint(word)], 1.0),
            ([language.code for language in candidates if _has_affix(language, word)], _AFFIX_WEIGHT),
        ):
            for code in matches:
                scores[code] += weight / len(matches)
    return scores


def _has_affix(language: _Language, word: str) -> bool:
    return any(
        written(affix) and len(word) >= len(affix) + _SHORTEST_STEM
        for written, affixes in ((word.endswith, language.endings), (word.startswith, language.beginnings))
        for affix in affixes
    )


def _words(text: str) -> list[str]:
    """Words with the marks of their script; an apostrophe inside does not divide one."""
    return re.findall(
        r"(?:(?![_\d])[\w\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u064b-\u065f\u200c\u200d'-])+",
        text.replace("’", "'"),
    )


def _known(code: str) -> str:
    if code not in known_languages():
        raise ValueError(f"'{code}' is none of {', '.join(known_languages())}")
    return code


class ResponseLanguage(Instruction):
    """Most of the reply is in the language, an ISO 639-1 code."""

    language: Annotated[str, AfterValidator(_known)]

    def _follows(self, reply: str) -> bool:
        return language_of(reply) == self.language
