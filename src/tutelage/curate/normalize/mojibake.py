"""Text that was decoded by the wrong table: `cafÃ©` -> `café`, by ftfy, and only its mending of encodings.

Code, LaTeX and URLs stay as they are, and so do quotes, ligatures and widths everywhere: ftfy's other mendings are off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from tutelage.curate.packages import missing_package
from tutelage.curate.prose import edit_prose

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_ENCODINGS: Final = (
    "latin-1",
    "cp1252",
    "cp1251",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso-8859-2",
    "mac_roman",
    "cp437",
)
"""The tables that ftfy takes a text back through. Source: ftfy 6.3, chardata.py."""
_TALKS_OF_ENCODINGS: Final = re.compile(
    r"mojibake|utf-?8|latin-?1|iso-?8859|windows-?125|cp125|unicode|charset|encod(?:ing|ed)|codierung|codage", re.I
)
"""A text about encodings shows mojibake on purpose."""


@dataclass(frozen=True, slots=True)
class Mojibake:
    """Mends a text; built once, so that a missing ftfy is said before any row is read.

    Raises:
        DependencyError: ftfy is not installed.
    """

    _import: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _ftfy()

    def __call__(self, text: str) -> str:
        """The text as its author wrote it, where ftfy is sure; itself otherwise."""
        if text.isascii() or not _lead_and_continuation().search(text) or _TALKS_OF_ENCODINGS.search(text):
            return text
        return edit_prose(text, _mend)


def _mend(text: str) -> str:
    if text.isascii() or not _lead_and_continuation().search(text):
        return text
    fix_encoding, config = _ftfy()
    return fix_encoding(text, config)


@cache
def _ftfy() -> tuple[Callable[[str, TextFixerConfig], str], TextFixerConfig]:
    try:
        from ftfy import TextFixerConfig, fix_encoding
    except ImportError as error:
        raise missing_package("ftfy", "curate.normalize.mojibake", error, "curate.normalize.mojibake=false") from error
    config = TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
    )
    return fix_encoding, config


@cache
def _lead_and_continuation() -> re.Pattern[str]:
    """A character that the first byte of a UTF-8 sequence can become, and one that a later byte can, side by side.

    A space is none of the later ones: ftfy takes any `Ã ` for a broken `à `, and the letter may be meant.
    """
    leads: set[str] = set()
    continuations: set[str] = set()
    for encoding in _ENCODINGS:
        leads.update(bytes(range(0xC2, 0xF5)).decode(encoding, "ignore"))
        continuations.update(bytes(range(0x80, 0xC0)).decode(encoding, "ignore"))
    continuations.update(map(chr, range(0x80, 0xC0)))
    lead, continuation = (re.escape("".join(sorted(group))) for group in (leads, continuations))
    return re.compile(f"[{lead}][{continuation}]")
