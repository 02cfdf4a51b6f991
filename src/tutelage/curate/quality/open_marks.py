"""What a last line leaves open: a bracket, a quotation, emphasis, code, or a row of a table."""

from __future__ import annotations

import re
from typing import Final

_NO_PAIR: Final = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|[:;]-?[()]|\A\s*\(?\w{1,3}\)|\d\"|(?<=\w)\"(?=\w)")
"""Brackets and quotes that open or close nothing: in code and links, faces, numbers of lists, inches."""
_PAIRS: Final = ("()", "[]", "“”", "「」", "『』", "（）", "《》", "【】")
_SUM: Final = re.compile(r"=|\d\s*[-+*/×÷]\s*\d")
"""Sums are written with brackets that do not pair, and with quotes for inches."""
_GERMAN: Final = "„"
"""Where it opens, “ closes."""
_CLOSED_EMPHASIS: Final = re.compile(r"\*\*[^*]+\*\*")
_OPEN_EMPHASIS: Final = re.compile(r"(?:\A|\s)\*\*(?=\w)")
_CLOSED_CODE: Final = re.compile(r"``[^\n]*?``|`[^`]*`")
_OPEN_CODE: Final = re.compile(r"(?:\A|[\s(])`(?=\S)")


def left_open(text: str, line: str) -> str | None:
    """What the last line of a text leaves open, as a word; None where it leaves nothing open.

    Args:
        text: prose, without white space behind it.
        line: its last line.
    """
    if line.lstrip().startswith("|"):
        return "a row of a table" if not line.endswith("|") and _is_table(text[: -len(line)]) else None
    if _OPEN_CODE.search(_CLOSED_CODE.sub(" ", line)) is not None:
        return "code"
    if _OPEN_EMPHASIS.search(_CLOSED_EMPHASIS.sub(" ", line)) is not None:
        return "emphasis"
    plain = _NO_PAIR.sub(" ", line)
    if _SUM.search(plain) is not None:
        return None
    for opening, closing in _PAIRS:
        if plain.count(opening) > plain.count(closing) and not (opening == "“" and _GERMAN in plain):
            return "a quotation" if opening in "“「『" else "a bracket"
    return "a quotation" if plain.count('"') % 2 and _GERMAN not in plain else None


def _is_table(before: str) -> bool:
    """Whether the line before is a row of a table that is closed."""
    last = before.rstrip().rsplit("\n", 1)[-1].strip()
    return len(last) > 1 and last.startswith("|") and last.endswith("|")
