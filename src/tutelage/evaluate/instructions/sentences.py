"""Counting sentences by a rule of our own, without a trained model.

A sentence ends at a mark of its script. A line break alone ends none, so a heading belongs to the sentence behind it.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files

from tutelage.evaluate.instructions.languages import function_words

_END = re.compile(r"(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’»)\]*_`]*+(?=\s|$)|[।॥۔؟。！？።]+")
"""Latin marks end a sentence in front of white space only; those of other scripts always."""

_NEAR = 80
"""Characters on each side of a mark that are read to judge it, so that a long text takes no time in its square."""

_OPENING = " \t\n\"'“‘«([*_`"
_LAST_WORD = re.compile(r"[\w.&]*$")


def count_sentences(text: str) -> int:
    """How many sentences `text` has; what is left behind the last mark counts if it holds a letter or a digit."""
    count = start = 0
    for end in _END.finditer(text):
        if _ends(text, end):
            count += _has_word(text[start : end.start()])
            start = end.end()
    return count + _has_word(text[start:])


def _ends(text: str, end: re.Match[str]) -> bool:
    mark = end["mark"]
    if mark is None or "!" in mark or "?" in mark:
        return True
    following = text[end.end() : end.end() + _NEAR].lstrip(_OPENING)
    if mark != ".":  # an ellipsis
        return not following or _begins_sentence(following)
    last_word = _last_word(text[max(0, end.start() - _NEAR) : end.start()])
    folded = last_word.casefold()
    if folded in _listed("titles") or (last_word.isdigit() and _begins_line(text, end.start() - len(last_word))):
        return not following
    if len(last_word) == 1 and last_word.isupper() and last_word != "I":  # an initial, or the name of a thing
        return not following or following.split(maxsplit=1)[0].lower() in function_words("en")
    return folded not in _listed("abbreviations") or not following or _begins_sentence(following)


def _begins_sentence(following: str) -> bool:
    """Whether the next word is capitalized; where all its letters are capitals, that says nothing, but for I and A."""
    word = following.split(maxsplit=1)[0]
    return word[0].isupper() and (len(word) == 1 or not word.isupper())


@cache
def _listed(name: str) -> frozenset[str]:
    return frozenset(tomllib.loads((files(__package__) / "sentences.toml").read_text(encoding="utf-8"))[name])


def _last_word(text: str) -> str:
    matched = _LAST_WORD.search(text)
    return matched.group() if matched else ""


def _begins_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip(" \t*_#>-")


def _has_word(text: str) -> bool:
    return re.search(r"\w", text) is not None
