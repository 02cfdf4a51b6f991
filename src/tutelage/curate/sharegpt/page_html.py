"""A reply that was copied as a page's HTML -> the Markdown that the page was made from.

A reply is such HTML where all of it stands in elements of the class `markdown`, as ChatGPT's page has it and the
extension that shared its conversations kept it; or, where every page is meant, in elements that Markdown can say. A
text that shows or discusses HTML has words around it, or elements of its own, and is no such reply.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from tutelage.curate.packages import missing_package

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

Pages = Literal["chatgpt", "any"]
_BEGINS: Final = re.compile(r"\s*<(?:div|p|ol|ul|pre|h[1-6]|blockquote|table|hr)[\s>/]", re.IGNORECASE)
_SHOWN: Final = ".markdown"
_BLOCKS: Final = frozenset(
    {"div", "p", "ol", "ul", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "table", "hr"}
)
_SAID_BY_MARKDOWN: Final = _BLOCKS | frozenset(
    {"a", "b", "strong", "i", "em", "del", "s", "code", "br", "li", "thead", "tbody", "tr", "th", "td", "img"}
)
_OF_THE_PAGE: Final = frozenset({"button", "svg", "path", "rect", "line", "polyline", "span", "sup", "sub"})
"""Its buttons, their pictures, and what colors code."""


def require_converter() -> None:
    """See to it that what converts is installed.

    Raises:
        DependencyError: it is not.
    """
    try:
        import markdownify  # noqa: F401 only whether it is there
    except ImportError as error:
        raise missing_package("markdownify", "curate.sharegpt.html", error, 'curate.sharegpt.html = "off"') from error


def markdown_of(reply: str, pages: Pages) -> str | None:
    """The Markdown of a reply that is a page's HTML; None for any other text.

    Args:
        reply: the text.
        pages: `chatgpt` for what stands in elements of the class `markdown`, `any` for all that Markdown can say.
    """
    if _BEGINS.match(reply) is None or not reply.rstrip().endswith(">"):
        return None
    from bs4 import BeautifulSoup

    root = BeautifulSoup(reply, "html.parser")
    if not (_is_shown(root) if pages == "chatgpt" else _is_sayable(root)):
        return None
    from tutelage.curate.sharegpt.markdown_writer import written

    return written(root) or None


def _is_shown(root: BeautifulSoup) -> bool:
    """Whether nothing is said outside of elements of the class `markdown`."""
    inside = {id(part) for element in root.select(_SHOWN) for part in element.descendants}
    return bool(inside) and all(id(text) in inside for text in root.find_all(string=True) if not text.isspace())


def _is_sayable(root: BeautifulSoup) -> bool:
    """Whether nothing is said outside of blocks, and no element is there that Markdown does not have."""
    said = [part for part in root.contents if not str(part).isspace()]
    if not all(_name(part) in _BLOCKS for part in said):
        return False
    elements: list[Tag] = root.find_all(True)
    return all(element.name in _SAID_BY_MARKDOWN | _OF_THE_PAGE for element in elements)


def _name(part: object) -> str | None:
    return getattr(part, "name", None)
