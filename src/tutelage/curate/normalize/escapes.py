r"""Escapes that were never read: a literal `\n` for a new line, `&amp;` for `&`. Code, LaTeX and URLs keep theirs."""

from __future__ import annotations

import html
import re
from html.entities import html5
from typing import Final

from tutelage.curate.prose import edit_prose, is_program, outside_backticks

_ESCAPE: Final = re.compile(r"\\r\\n|\\n")
_ESCAPES: Final = re.compile(r"(?:\\r\\n|\\n)+")
_DRIVE: Final = re.compile(r"(?<![A-Za-z])[A-Za-z]:$")
_JSON: Final = re.compile(r'"\s*:\s*["\[{]')
_QUOTES: Final = "\"'`"
_ENTITY: Final = re.compile(r"(?<!=)&(?:#[0-9]{2,6}|#[xX][0-9a-fA-F]{2,5}|[A-Za-z][A-Za-z0-9]{1,24});")
MAY_HAVE_ESCAPES: Final = r"\\n|&(?:#|[A-Za-z])[0-9A-Za-z]+;"
"""As a pattern of `screens`."""
_TALKS_OF_MARKUP: Final = re.compile(
    r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]*)?/?>|\b(?:X?HTML|XML|SVG|entit(?:y|ies)|escap(?:e|ed|ing))\b", re.IGNORECASE
)
_CONTROL_TOKEN: Final = re.compile(r"<[|｜]|[|｜]>|</?s>|<(?:start|end)_of_\w+>|\[/?INST\]")
"""What an entity must not become: a control token that the author kept from being one."""


def read_newlines(text: str) -> str:
    r"""A text on one line that has `\n` in letters, with lines.

    Left alone are texts with real lines, in which any `\n` is not clearly meant as one: a path, a command of LaTeX, a
    string in JSON or a program, talk of the escape.
    """
    if "\\n" not in text or "\n" in text:
        return text
    prose = outside_backticks(text)
    runs = list(_ESCAPES.finditer(prose))
    if not runs or not all(map(_means_lines, runs)) or _JSON.search(text) or is_program(_ESCAPE.sub("\n", prose)):
        return text
    return edit_prose(text, lambda piece: _ESCAPE.sub("\n", piece))


def _means_lines(run: re.Match[str]) -> bool:
    """Whether a run of escapes stands where lines end."""
    text, start, end = run.string, run.start(), run.end()
    before, after = text[start - 1 : start] or " ", text[end : end + 1] or " "
    if before in "\\[(|" or after in "])|\\":
        return False  # "\\n", "[^\n]", "(\n|\r)"
    if after in _QUOTES and (before.isalnum() or before in _QUOTES):
        return False  # "text\n", '\n'
    if after.islower():  # "\nu", "C:\new", but "the end.\nthen"
        return not _DRIVE.search(text[:start][-3:]) and (before in '.!?:;,)"' or end - start > 2)
    if before == after == " ":  # "What does \n mean?"
        return not text[end:].lstrip()[:1].islower()
    return True


def read_entities(text: str) -> str:
    """A text with the characters that HTML's entities stand for, once (`&amp;lt;` becomes `&lt;`).

    Left alone are texts with tags or talk of markup, in which entities are meant, and those that would become a
    control token.
    """
    if "&" not in text or not _ENTITY.search(text) or _TALKS_OF_MARKUP.search(text):
        return text
    read = edit_prose(text, lambda piece: _ENTITY.sub(_character, piece))
    return text if len(_CONTROL_TOKEN.findall(read)) > len(_CONTROL_TOKEN.findall(text)) else read


def _character(match: re.Match[str]) -> str:
    entity = match.group()
    if entity[1] != "#" and entity[1:] not in html5:
        return entity
    character = html.unescape(entity)
    return " " if character == "\xa0" else character
