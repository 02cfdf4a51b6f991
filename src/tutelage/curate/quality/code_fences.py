"""Code fences that are opened and never closed: the reply was cut, or the rest of it is shown as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import CodeFencesSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition

_FENCE: Final = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
"""A line that opens or closes a block. Source: CommonMark 0.31, section 4.5; in a list item or quote, too."""
_CLOSED_BEHIND_CODE: Final = re.compile(r"(?<=[^`\s])```[ \t]*$", re.MULTILINE)
"""Marks that close a block at the end of a line of code, as writers of chats do; CommonMark takes them for text."""


@dataclass(frozen=True, slots=True)
class CodeFences:
    """Finds a block that is open at the end.

    Fences inside of a fence count as CommonMark reads them or as nested, whichever closes all: models write both.
    """

    settings: CodeFencesSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with the marks of a block."""
        return chunk.learned.rows_with("```|~~~")

    def __call__(self, row: RowTexts) -> str | None:
        """The line that opens the block, and what the text ends in."""
        for text in row.learned:
            if ("```" in text or "~~~" in text) and (opening := unclosed_fence(text)) is not None:
                return f"{excerpt(text, opening)} is not closed; the end is {text.rstrip()[-30:]!r}"
        return None


def unclosed_fence(text: str) -> int | None:
    """Where the block begins that is open at the end of a text; None where all are closed."""
    lines = [(match.start(), match[1], match[2].strip()) for match in _FENCE.finditer(text)]
    stack: list[tuple[int, str]] = []
    opened: tuple[int, str] | None = None
    for start, marks, language in lines:
        closes = bool(opened) and not language and opened is not None and marks.startswith(opened[1])
        if opened is None:
            opened = (start, marks)
        elif closes:
            opened = None
        if stack and not language and marks.startswith(stack[-1][1]):
            stack.pop()
        else:
            stack.append((start, marks))
    if (
        opened is None
        or not stack
        or text.count(opened[1]) % 2 == 0
        or _CLOSED_BEHIND_CODE.search(text, opened[0] + len(opened[1]))
    ):
        return None
    return opened[0]


CODE_FENCES = RuleDefinition("code_fences", "a block of code that is opened and never closed", CodeFences)
