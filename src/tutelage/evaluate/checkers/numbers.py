r"""The number that a reply ends with, beside the reference's: answers as GSM8K has them.

A number is read so: commas between groups of three digits and signs of currencies are left out, a percent sign is not
read (5% is 5), a period is the decimal point, and one that ends a sentence is none. 3/4, \frac{3}{4} and 1 3/4 are
fractions; 3/4/2024 is none. A minus counts directly before a number, not between two. Digits that stand behind a
letter, as in H2O, are a part of the word. Where a line `#### ` stands, the first number behind the last one counts;
elsewhere the last number.
"""

from __future__ import annotations

import re
from fractions import Fraction

from tutelage.evaluate.checkers.checker import Checker
from tutelage.types import Prompt

MARKER = "####"
"""Source: Cobbe et al. 2021 (GSM8K): the final answer stands behind it."""
MOST_DIGITS = 400
"""Our choice: beyond every answer, and below where Python stops to read digits; so are exponents of three digits."""

_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])                                   # not inside a word, nor behind a decimal point
    (?P<sign>(?<!\))[-\u2212])?                  # a minus, not behind an operand
    (?:[$\u20ac\u00a3\u00a5\u20b9][ ]?(?P<inner_sign>[-\u2212])?)?
    (?:
        (?<!/)(?:(?P<mixed>\d++)[ ])?(?P<over>\d++)/(?P<under>\d++)(?!/|\.\d)
      | (?P<decimal>(?:{_WHOLE}(?:\.\d+)?|\.\d+)(?:[eE][+-]?(?P<exponent>\d+))?)
    )
    """,
    re.VERBOSE,
)
_TEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def final_number(text: str) -> Fraction | None:
    """The number that `text` ends with, or that stands behind its last `####`; None where it holds none."""
    _, marker, behind = text.rpartition(MARKER)
    if marker:
        found = _numbers(behind)
        if found:
            return found[0]
    found = _numbers(text)
    return found[-1] if found else None


def number(prompt: Prompt, reply: str) -> float:
    """1 where the reply ends with the reference's number: the same value, however it is written."""
    wanted = final_number(prompt.reference)
    return float(wanted is not None and final_number(reply) == wanted)


def without_number(prompt: Prompt) -> str | None:
    """Why the row cannot be scored; None where its reply holds a number."""
    return None if final_number(prompt.reference) is not None else f"no number in {prompt.reference[:80]!r}"


def _numbers(text: str) -> list[Fraction]:
    text = _TEX_FRACTION.sub(r" \1/\2 ", text).replace("{,}", ",").replace("\\,", "").replace("\\$", "$")
    return [value for match in _NUMBER.finditer(text) if (value := _value(match)) is not None]


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MOST_DIGITS or len(match["exponent"] or "") > 3:
        return None
    if match["decimal"] is not None:
        value = Fraction(match["decimal"].replace(",", ""))
    elif int(match["under"]) == 0:
        return None
    else:
        value = Fraction(int(match["over"]), int(match["under"])) + int(match["mixed"] or 0)
    return -value if match["sign"] or match["inner_sign"] else value


NUMBER_CHECKERS = (Checker("number", number, unusable=without_number),)
