r"""Formulas whose marks do not pair: `$`, `\( \)`, `\[ \]`, `\left \right`, `\begin{...} \end{...}`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import FormulasSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition

_ENVIRONMENT: Final = re.compile(r"\\(begin|end)\{(\w+\*?)\}")
_PAIRS: Final = tuple(
    (name, re.compile(opening), re.compile(closing))
    for name, opening, closing in (
        (r"\( \)", r"(?<!\\)\\\(", r"(?<!\\)\\\)"),
        (r"\[ \]", r"(?<!\\)\\\[", r"(?<!\\)\\\]"),
        (r"\left \right", r"\\left(?![a-zA-Z])", r"\\right(?![a-zA-Z])"),
    )
)
_COMMAND: Final = re.compile(r"\\[a-zA-Z]{2,}|[_^]\{")
_MAY_BE_LATEX: Final = r"\\[a-zA-Z]{2,}|[_^]\{|\\[(\[]"
_FORMULA: Final = re.compile(r"[=^_+]|\\(?:frac|sqrt|times|cdot|le|ge|int|sum|text|left|right)\b")
_DISPLAY: Final = re.compile(r"(?<!\\)\$\$")
_SINGLE: Final = re.compile(r"(?<!\\)\$")
_PRICE: Final = re.compile(r"\$ ?\d")
"""Where one stands, single dollars are not counted."""
_INLINE: Final = re.compile(r"(?<![\\$])\$(?!\$)(?:\\.|[^$\\])+?(?<![\\$])\$(?!\$)", re.DOTALL)
_OPEN: Final = re.compile(r"(?<![\\$])\$\s?(?:\\[a-zA-Z]+|[A-Za-z]\s?[_^=])|[}A-Za-z]\$(?![\w$])")
"""A dollar that is no price: a command, or a letter with an index, power or equals sign, stands behind it."""


@dataclass(frozen=True, slots=True)
class Formulas:
    """Finds marks that do not pair, in texts that have commands of LaTeX; prices and patterns are no formulas."""

    settings: FormulasSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a command of LaTeX, an index or a power in braces."""
        return chunk.learned.rows_with(_MAY_BE_LATEX)

    def __call__(self, row: RowTexts) -> str | None:
        """Which marks do not pair, and where."""
        for index, text in enumerate(row.learned):
            if ("\\" in text or "$" in text) and (problem := unbalanced_math(row.prose[index])) is not None:
                return problem
        return None


def unbalanced_math(prose: str) -> str | None:
    """What does not pair in a text without code; None where all does, or nothing is LaTeX."""
    if not _COMMAND.search(prose) and "\\(" not in prose and "\\[" not in prose:
        return None
    environments = Counter[str]()
    for kind, name in _ENVIRONMENT.findall(prose):
        environments[name] += 1 if kind == "begin" else -1
    if name := next((name for name, count in environments.items() if count), None):
        return rf"\begin{{{name}}} and \end{{{name}}} do not pair: {excerpt(prose, prose.find(name))}"
    for name, opening, closing in _PAIRS:
        opened, closed = opening.findall(prose), closing.findall(prose)
        if len(opened) != len(closed) and (at := _place(prose, opening, closing)) is not None:
            return f"{name}: {len(opened)} opened, {len(closed)} closed: {excerpt(prose, at)}"
    if len(_DISPLAY.findall(prose)) % 2:
        return f"an odd number of $$: {excerpt(prose, prose.rfind('$$'))}"
    singles = _DISPLAY.sub(" ", prose)
    if len(_SINGLE.findall(singles)) % 2 and not _PRICE.search(singles):
        left = _OPEN.search(_INLINE.sub(" ", singles))
        return None if left is None else f"a $ without its pair: {excerpt(singles, singles.rfind('$'))}"
    return None


def _place(prose: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> int | None:
    """Where the marks are; None where a lone one may be a stray backslash before a bracket: no formula is near it."""
    places = [match.start() for pattern in (opening, closing) for match in pattern.finditer(prose)]
    if len(places) == 1 and not _FORMULA.search(prose, max(0, places[0] - 40), places[0] + 42):
        return None
    return places[0]


FORMULAS = RuleDefinition("formulas", "formulas whose marks do not pair", Formulas)
