"""What of a text is prose: without code, addresses and formulas; and the parts that an edit of prose must not touch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

MOST_CODE: Final = 0.08
"""Of the characters that are not white space, this share at most may be such as code has many of and prose few."""

_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|https?://\S+|\S+@\S+\.\S+", re.DOTALL)
_CODE_CHARACTERS = "{}[]()<>=;_|\\/+*&^~#@$%"
_WITHOUT_CODE_CHARACTERS = str.maketrans("", "", _CODE_CHARACTERS)

PROGRAM_LINES: Final = 0.3
PROGRAM_JUDGED: Final = 40
"""Lines at the start of a text by which it is judged to be a program."""
_PROGRAM_WORDS: Final = (
    "assert|async|await|case|catch|class|const|continue|def|elif|else|enum|except|export|finally|fn|for|foreach|from|func"
    "|function|if|import|include|int|let|match|namespace|package|pass|print|private|protected|public|raise|return|static"
    "|struct|switch|throw|try|use|using|var|void|while|with|yield|SELECT|INSERT|UPDATE|CREATE|DELETE"
)
_LINE_BEGINS: Final = re.compile(
    rf"(?:[ \t]+(?:{_PROGRAM_WORDS})\b|(?:{_PROGRAM_WORDS})\b(?=[^\n]*[({{:=\"'<])"
    r"|[ \t]*(?:#include|<\?php|[)}\]]+[;,]?$|//|/\*|@\w+\())"
)
_LINE_ENDS: Final = (");", "];", "};", '";', "';", "{", "):")
_FENCED_OR_INLINE = r"(?P<fence>`{3,}|~{3,}).*?(?:(?P=fence)|\Z)|(?<!`)(?P<ticks>`{1,2})(?!`).+?(?<!`)(?P=ticks)(?!`)"
_FORMULA = (
    r"\$\$.*?\$\$|\$(?=[^\s$])[^$\n]{0,300}(?<=[^\s$])\$(?!\d)|\\\(.*?\\\)|\\\[.*?\\\]"
    r"|\\begin\{(?P<environment>\w+\*?)\}.*?\\end\{(?P=environment)\}|\\[A-Za-z]{2,}\{[^{}\n]*\}"
)
_ADDRESS = r"\bhttps?://[^\s<>]+"
_CODE = re.compile(_FENCED_OR_INLINE, re.DOTALL)
_PROTECTED = re.compile(f"{_FENCED_OR_INLINE}|{_FORMULA}|{_ADDRESS}", re.DOTALL)


def without_code(text: str) -> str:
    """The prose of a text: code in backticks, display formulas, URLs and e-mail addresses are a space each."""
    return _NO_PROSE.sub(" ", text)


def outside_backticks(text: str) -> str:
    """The text with every stretch in backticks or a fence, closed or not, as a space."""
    return _CODE.sub(" ", text) if "`" in text or "~~~" in text else text


def is_mostly_code(prose: str) -> bool:
    """Whether more than `MOST_CODE` of what is visible are characters of code."""
    visible = "".join(prose.split())
    return len(visible) - len(visible.translate(_WITHOUT_CODE_CHARACTERS)) > MOST_CODE * len(visible)


def is_program(text: str) -> bool:
    """Whether a text without backticks is a program: `PROGRAM_LINES` of its lines begin or end as lines of code do."""
    lines = [line for line in text.split("\n", PROGRAM_JUDGED) if line and not line.isspace()][:PROGRAM_JUDGED]
    of_code = sum(1 for line in lines if line.endswith(_LINE_ENDS) or _LINE_BEGINS.match(line))
    return of_code > PROGRAM_LINES * len(lines)


def is_json(text: str) -> bool:
    """Whether the whole text is JSON, or looks like JSON that was cut."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):  # one that was cut is no whole JSON, and still no prose
        return '":' in stripped or '" :' in stripped
    return True


def edit_prose(text: str, edit: Callable[[str], str]) -> str:
    """Apply an edit to the parts of a text that are no code in backticks, no LaTeX and no URL.

    A text that is a program without any backticks is left whole.
    """
    pieces: list[str] = []
    prose: list[str] = []
    start = 0
    for match in _PROTECTED.finditer(text):
        prose.append(text[start : match.start()])
        pieces += (text[start : match.start()], match.group())
        start = match.end()
    prose.append(text[start:])
    pieces.append(text[start:])
    if is_program(" ".join(prose)):
        return text
    pieces[::2] = map(edit, prose)
    return "".join(pieces)
