"""HTML of a chat page, parsed -> Markdown, by markdownify, with what it does not do: code as it stands, and formulas.

Written for markdownify 1.2: a block of code gets a fence longer than the backticks in it, and its language from the
page; a formula is the TeX that KaTeX keeps beside what it draws; a bar in a cell of a table is escaped; and stars and
underscores are escaped only where Markdown would read them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

_BUTTONS: Final = ["button", "svg", "style", "script"]
_TEX: Final = "annotation[encoding='application/x-tex']"
_DRAWN: Final = ".katex-display, .katex, math"
_FORMULA: Final = "tex-formula"
_BLOCK: Final = "data-block"
_LANGUAGE: Final = re.compile(r"language-([\w+#.\-]+)")
_NAME: Final = re.compile(r"[\w+#.\-]{1,20}")
_BACKTICKS: Final = re.compile(r"`+")
_READ_BY_MARKDOWN: Final = re.compile(r"\*(?!\s)|(?<!\s)\*|(?<=\n)\*|(?<![^\W_])_|_(?![^\W_])")
"""A star inside of a line with white space on both sides, or an underscore inside of a word, means nothing."""


def written(root: BeautifulSoup) -> str:
    """The Markdown of a page's elements. They are altered."""
    for button in root.find_all(_BUTTONS):
        button.decompose()
    _keep_formulas(root)
    for cell in root.find_all(["td", "th"]):
        for text in cell.find_all(string=True):
            text.replace_with(text.replace("|", "\\|"))
    return str(_Writer(heading_style="atx", bullets="-").convert_soup(root)).strip()


def _keep_formulas(root: BeautifulSoup) -> None:
    """Each drawn formula becomes one element with its TeX."""
    for drawn in root.select(_DRAWN):
        tex = drawn.select_one(_TEX)
        if tex is None or drawn.decomposed:
            continue
        block = "katex-display" in (drawn.get("class") or []) or drawn.get("display") == "block"
        formula = root.new_tag(_FORMULA, attrs={_BLOCK: "yes"} if block else {})
        formula.string = tex.get_text().strip()
        drawn.replace_with(formula)
        drawn.decompose()


def _language(block: Tag) -> str:
    """Of a block of code: what its class says, else the word above it."""
    code = block.find("code")
    if not isinstance(code, Tag):
        return ""
    named = _LANGUAGE.search(" ".join(code.get("class") or []))
    if named:
        return named[1]
    above = next((text.strip() for text in block.find_all(string=True) if not text.isspace()), "")
    return above if above not in code.get_text() and _NAME.fullmatch(above) else ""


class _Writer(MarkdownConverter):
    """What differs from markdownify's own; it calls these by the names of elements."""

    def escape(self, text: str, parent_tags: Any) -> str:  # noqa: ARG002 markdownify hands it on
        return _READ_BY_MARKDOWN.sub(lambda met: "\\" + met[0], text or "")

    def convert_pre(self, el: Tag, text: str, parent_tags: Any) -> str:  # noqa: ARG002 as above
        code = el.find("code")
        inside = (code if isinstance(code, Tag) else el).get_text()
        fence = "`" * max(3, 1 + max(map(len, _BACKTICKS.findall(inside)), default=0))
        return f"\n\n{fence}{_language(el)}\n{inside.removesuffix(chr(10))}\n{fence}\n\n"

    def convert_tex_formula(self, el: Tag, text: str, parent_tags: Any) -> str:  # noqa: ARG002 as above
        tex = el.get_text()
        return f"\n\n$$\n{tex}\n$$\n\n" if el.get(_BLOCK) else f"${tex}$"
