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
_NOTICE_REST: Final = 120
"""Characters that may follow the words of a notice: an address, or what to do."""
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


def error_notice(reply: str) -> str | None:
    """The notice of an error that a reply is; None for a reply that says something."""
    text = reply.strip().replace("’", "'")
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
    return tuple(tomllib.loads((files(__package__) / "notices.toml").read_text(encoding="utf-8"))["notices"])
