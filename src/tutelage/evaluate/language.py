"""The language that a reply is written in, where enough of it is prose; what is short, JSON or code has none.

Which language a text is most like is told by `instructions.languages`, what of it is prose by `curate.prose`; here
stands when there is too little of it.
"""

from __future__ import annotations

import re

from tutelage.curate.prose import is_json, is_mostly_code, without_code
from tutelage.evaluate.instructions.languages import language_of

LEAST_LETTERS = 40
"""Of prose in letters; about eight words. Below, one foreign word or name decides."""
LEAST_WORDS = 5
"""Different ones, of letters: what says the same word over and over is in no language."""
LEAST_SIGNS = 10
"""Of prose in signs that stand for a syllable or a word: Han, kana, Hangul; and in Thai, which has few spaces."""
_SIGNS = re.compile(r"[\u0e00-\u0e7f\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def prose_language(text: str) -> str | None:
    """The ISO 639-1 code of the language; None where nothing decides, or too little of the text is prose."""
    if is_json(text):
        return None
    prose = without_code(text)
    letters, signs = sum(map(str.isalpha, prose)), len(_SIGNS.findall(prose))
    words = set(re.findall(r"\w+", prose.lower()))
    if (letters - signs < LEAST_LETTERS or len(words) < LEAST_WORDS) and signs < LEAST_SIGNS:
        return None
    return None if is_mostly_code(prose) else language_of(prose)
