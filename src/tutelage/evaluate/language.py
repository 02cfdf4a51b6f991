"""The language that a reply is written in, where enough of it is prose; what is short, JSON or code has none.

Which language a text is most like is told by `instructions.languages`; here stands when that is not asked.
"""

from __future__ import annotations

import json
import re

from tutelage.evaluate.instructions.languages import language_of

LEAST_LETTERS = 40
"""Of prose in letters; about eight words. Below, one foreign word or name decides."""
LEAST_WORDS = 5
"""Different ones, of letters: what says the same word over and over is in no language."""
LEAST_SIGNS = 10
"""Of prose in signs that stand for a syllable or a word: Han, kana, Hangul; and in Thai, which has few spaces."""
MOST_CODE = 0.08
"""Of the characters that are not white space, these share at most may be such as code has many of and prose few."""

_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|https?://\S+|\S+@\S+\.\S+", re.DOTALL)
_SIGNS = re.compile(r"[\u0e00-\u0e7f\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_CODE_CHARACTERS = frozenset("{}[]()<>=;_|\\/+*&^~#@$%")


def prose_language(text: str) -> str | None:
    """The ISO 639-1 code of the language; None where nothing decides, or too little of the text is prose."""
    if _is_json(text):
        return None
    prose = _NO_PROSE.sub(" ", text)
    letters, signs = sum(map(str.isalpha, prose)), len(_SIGNS.findall(prose))
    words = set(re.findall(r"\w+", prose.lower()))
    if (letters - signs < LEAST_LETTERS or len(words) < LEAST_WORDS) and signs < LEAST_SIGNS:
        return None
    visible = [character for character in prose if not character.isspace()]
    if sum(character in _CODE_CHARACTERS for character in visible) > MOST_CODE * len(visible):
        return None
    return language_of(prose)


def _is_json(text: str) -> bool:
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):  # one that was cut is no whole JSON, and still no prose
        return '":' in stripped or '" :' in stripped
    return True
