"""Characters: Unicode form NFC, control characters, and such as are not seen. Code in backticks keeps its own."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from tutelage.curate.prose import edit_prose

_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\u2028\u2029]")
_TERMINAL: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""A control sequence of terminals, such as a color. Source: ECMA-48, section 5.4."""
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\u2060\ufeff\ufff9-\ufffb]")
MAY_HAVE_CONTROL_CHARACTERS: Final = r"[\x00-\x08\x0b-\x1f\x7f]"
"""Those of ASCII, as a pattern of `screens`."""
_NO_SPACES: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Thai, Lao, Burmese and Khmer: there U+200B shows where a line may be broken. Source: Unicode 15, section 23.2."""
_WINDOWS: Final = {
    code: bytes([code]).decode("cp1252", "ignore") or None  # None removes it
    for code in range(0x80, 0xA0)
}
"""What C1 control characters mean in text that came from Windows. Source: WHATWG HTML, numeric character references."""
_REMOVED: Final = dict.fromkeys((*range(9), *range(0x0E, 0x20), 0x7F, 0xAD, 0x2060, 0xFEFF, *range(0xFFF9, 0xFFFC)))


def to_nfc(text: str) -> str:
    """The text in Unicode form NFC: a letter and its accents as one character where there is one."""
    if unicodedata.is_normalized("NFC", text):
        return text
    return edit_prose(text, lambda prose: unicodedata.normalize("NFC", prose))


def without_control_characters(text: str) -> str:
    r"""The text with every end of line as `\n`, and without control characters, terminal colors and invisible marks.

    Joiners (U+200C, U+200D) and marks of direction stay: scripts and emoji need them.
    """
    if not _CONTROL.search(text):
        return text
    text = _LINE_ENDS.sub("\n", text) if "\r" in text else text
    return edit_prose(text, _clean)


def _clean(prose: str) -> str:
    prose = _TERMINAL.sub("", _LINE_ENDS.sub("\n", prose))
    prose = prose.translate({**_REMOVED, **_WINDOWS})
    return prose if _NO_SPACES.search(prose) else prose.replace("\u200b", "")
