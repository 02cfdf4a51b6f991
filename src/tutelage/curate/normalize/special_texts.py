"""Control tokens in letters: ends and beginnings of text, and tags of reasoning. The spellings are data."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final

_STRUCK_OUT: Final = re.compile(r"<s>(?=\S)")
"""HTML's `<s>`: where it opens inside of a text, `</s>` closes it."""


MAY_HAVE_END_TOKENS: Final = r"[>\]]\s*\z|\A\s*<"
"""Of ASCII, as a pattern of `screens`."""


@cache
def special_texts(kind: str) -> dict[str, str]:
    """The table of a kind: `end` and `begin` (spelling to models), `reasoning` (opening to closing)."""
    table = tomllib.loads((files(__package__) / "special_texts.toml").read_text(encoding="utf-8"))
    return dict(table[kind])


def without_end_tokens(text: str) -> str:
    """A text without the control tokens in letters that it begins or ends with; the rest is as it was.

    Left alone: such a token inside of a text, in backticks or quotes, and HTML's `<s>struck out</s>`.
    """
    if not text or (text.rstrip()[-1:] not in ">]" and text.lstrip()[:1] != "<"):
        return text
    begin, end = _edges()
    ending = end.search(text)
    if ending and not ("</s>" in ending.group() and _STRUCK_OUT.search(text, 1)):
        text = text[: ending.start()]
    return text if text.lstrip().startswith("<s>") and "</s>" in text else begin.sub("", text)


@cache
def _edges() -> tuple[re.Pattern[str], re.Pattern[str]]:
    begin, end = ("|".join(map(re.escape, special_texts(kind))) for kind in ("begin", "end"))
    return re.compile(rf"\A\s*(?:(?:{begin})\s*)+"), re.compile(rf"(?:\s*(?:{end}))+\s*\Z")
