"""What annotators are to keep to, as it stands beside the prompt: Markdown, or plain text."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from tutelage.errors import ConfigError, cause_of

MARKDOWN = (".md", ".markdown")


def read_guidelines(path: Path) -> Markup:
    """A file of guidelines as HTML: Markdown without HTML of its own and without pictures, other text as it stands.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "The guidelines cannot be read",
            where=str(path),
            found=cause_of(error),
            expected="a text file in UTF-8",
            fix="check the name after --guidelines",
        ) from error
    if path.suffix.lower() not in MARKDOWN:
        return Markup('<p class="text">{}</p>').format(escape(text))
    from markdown_it import MarkdownIt

    # HTML in it is escaped, and links lead to no script; the page's policy loads no picture.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(parser.render(text))  # noqa: S704 - every character of the file is escaped by the parser
