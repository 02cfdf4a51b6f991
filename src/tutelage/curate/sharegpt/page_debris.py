"""What the buttons of a chat service's page leave in texts that are copied from it."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final

_LANGUAGE: Final = r"(?:[A-Za-z][\w+#.\-]{0,20}?)?"
_EMPTY_BLOCK: Final = re.compile(rf"^```[ \t]*\n?{_LANGUAGE}Copy code[ \t\n]*```[ \t]*\n?", re.MULTILINE)
_COPY_CODE: Final = re.compile(rf"^(```[ \t]*)\n?({_LANGUAGE})Copy code[ \t]*\n?", re.MULTILINE)
_COPY_COUNTS: Final = re.compile(r"Copy\d+ chars / \d+ words")
_VERSION: Final = re.compile(r"\A\s*(\d{1,3}) / (\d{1,3})(?:[ \t]*\n\s*|(?=[^\W\d_a-z]))")
"""Which of several replies is shown. A capital or an end of line follows: `1 / 2 cup` and `1 / 2x` are fractions."""
_VERSION_AT_END: Final = re.compile(r"(\s*)(?<!\d)(\d{1,3}) / (\d{1,3})\Z")
"""The same behind a question. `3 / 4` at an end may be a sum; `2 / 2` hardly is."""
_WORD_END: Final = re.compile(r"[^\W\d_]{3}[.?!,)\u200b]*\Z|[.?!)\u200b]\Z")
_LEAST_BEFORE_VERSION: Final = 12
"""Characters: `2 / 2` behind fewer may be a sum."""
_NOTICE_REST: Final = 120
"""Characters that may follow the words of a notice: an address, or what to do."""
_NOTHING: Final = " \t\r\n\xa0\u200b\ufeff"
"""What a reply may be made of that says nothing: a page leaves one zero-width space where none came."""
_RESTARTED: Final = re.compile(r"^1\. [^\n]*\n(?:(?!\d+[.)] )[^\n]*\n){0,20}?1\. ", re.MULTILINE)


def without_buttons(text: str) -> str:
    """The text without what buttons left in it; blocks of code keep their language."""
    if "Copy" in text:
        text = _EMPTY_BLOCK.sub("", text)
        text = _COPY_CODE.sub(r"\1\2\n", text)
        text = _COPY_COUNTS.sub("", text)
    version = _VERSION.match(text)
    if version and 2 <= int(version[2]) >= int(version[1]) >= 1 and version.end() < len(text):
        text = text[version.end() :]
    return text


def without_buttons_behind(question: str) -> str:
    """A user's turn without what buttons and notices of the page left behind it, one after the other."""
    text = question.rstrip()
    while (shorter := _without_last_button(text)) is not None:
        text = shorter
    return text if len(text) < len(question.rstrip()) else question


def _without_last_button(text: str) -> str | None:
    """The text without what is left at its end; None where nothing is."""
    for behind in _behind_questions():
        met = behind.search(text)
        if met is not None and met.start():
            return text[: met.start()].rstrip()
    met = _VERSION_AT_END.search(text)
    if met is None or met.start() < _LEAST_BEFORE_VERSION or not 1 <= int(met[2]) <= int(met[3]):
        return None
    before = text[: met.start()]
    same, apart = met[2] == met[3], met[1]
    if same or (apart.count("\n") or (not apart and _WORD_END.search(before) is not None)):
        return before.rstrip()
    return None


def error_notice(reply: str) -> str | None:
    """The notice of an error that a reply is, empty for a reply of nothing; None for a reply that says something."""
    text = reply.strip(_NOTHING).replace("’", "'")
    if not text:
        return ""
    for notice in _notices():
        if text.startswith(notice) and len(text) <= len(notice) + _NOTICE_REST:
            return notice
    return None


def restarted_list(text: str) -> int | None:
    """Where a list begins whose next item has the number 1 again; None where none does."""
    met = _RESTARTED.search(text)
    return None if met is None else met.start()


@cache
def _notices() -> tuple[str, ...]:
    return tuple(_listed("notices.toml", "notices"))


@cache
def _behind_questions() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"(?:{pattern})\Z") for pattern in _listed("buttons.toml", "behind_questions"))


def _listed(file: str, name: str) -> list[str]:
    listed: list[str] = tomllib.loads((files(__package__) / file).read_text(encoding="utf-8"))[name]
    return listed
