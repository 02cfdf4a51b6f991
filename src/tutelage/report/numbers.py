"""Numbers in words: the one place that decides digits and units. The same value always reads the same."""

from __future__ import annotations

import math

ABSENT = "not recorded"
GAP = "\u00a0"
"""A no-break space: a number never parts from its unit at the end of a line."""

MINUS = "\u2212"
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def percent(share: float | None) -> str:
    """A share from 0 to 1 as percent with one decimal: 0.81 -> `81.0 %`."""
    return _special(share) or f"{_signed(_decimals(_number(share) * 100, 1))}{GAP}%"


def percent_change(change: float) -> str:
    """A difference of two shares in percentage points, always with its sign: -0.025 -> `-2.5 points`."""
    return _special(change) or f"{_with_plus(_decimals(change * 100, 1))}{GAP}points"


def points_change(change: float) -> str:
    """The same without its unit, for a column of points: -0.025 -> `-2.5`."""
    return _special(change) or _with_plus(_decimals(change * 100, 1))


def percent_range(low: float, high: float) -> str:
    """An interval of a share in whole percent, without the unit: `71–88`."""
    return f"{low * 100:.0f}–{high * 100:.0f}"


def points_range(low: float, high: float) -> str:
    """An interval of a change in whole points, its ends with their signs, also that of a 0: `−0…+12`."""
    return "…".join(_signed(f"{end * 100:+.0f}") for end in (low, high))


def loss(value: float | None) -> str:
    """A loss in nats per token, three decimals."""
    return _special(value) or _signed(_decimals(_number(value), 3))


def loss_change(change: float) -> str:
    """A difference of two losses, three decimals, always with its sign."""
    return _special(change) or _with_plus(_decimals(change, 3))


def count(value: float | None) -> str:
    """A whole number with thousands set apart: 134515008 -> `134,515,008`."""
    return _special(value) or _signed(f"{_number(value):,.0f}" if isinstance(value, float) else f"{value:,}")


def significant(value: float | None, digits: int = 4) -> str:
    """A number with its leading digits, in powers of ten where it is tiny or huge: 0.0002 -> `2e-4`."""
    special = _special(value)
    if special:
        return special
    number = _number(value)
    if number != 0 and not 1e-3 <= abs(number) < 1e6:
        mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return _signed(f"{mantissa}e{int(exponent)}")
    text = f"{number:.{digits}g}"
    return _signed(f"{number:,.0f}" if "e" in text else text)


def byte_size(value: float | None) -> str:
    """Bytes in binary units, two decimals from KiB on: 1524713390 -> `1.42 GiB`."""
    special = _special(value)
    if special:
        return special
    size, unit = float(_number(value)), 0
    while round(abs(size), 2) >= 1024 and unit < len(BYTE_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{_signed(_decimals(size, 0 if unit == 0 else 2))}{GAP}{BYTE_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `8.4 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    special = _special(seconds)
    if special:
        return special
    length = _number(seconds)
    if length < 0:
        return MINUS + duration(-length)
    if round(length, 1) < 60:
        return f"{length:.1f}{GAP}s"
    if round(length) < 3600:
        minutes, remainder = divmod(round(length), 60)
        return f"{minutes}{GAP}min{GAP}{remainder:02d}{GAP}s"
    if round(length / 60) < 24 * 60:
        hours, remainder = divmod(round(length / 60), 60)
        return f"{hours}{GAP}h{GAP}{remainder:02d}{GAP}min"
    days, remainder = divmod(round(length / 3600), 24)
    return f"{days}{GAP}d{GAP}{remainder}{GAP}h"


def times(number: int) -> str:
    """How often: `once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(number) or f"{count(number)}{GAP}times"


def exact(value: float | None) -> str:
    """The value as the file holds it, for machines that read the page; empty for None."""
    return "" if value is None else repr(value)


def _number(value: float | None) -> float:
    assert value is not None, "absent values are answered before they are formatted"
    return value


def _special(value: float | None) -> str | None:
    """Words for what is no finite number; None for a finite one."""
    if value is None:
        return ABSENT
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else f"{MINUS}infinity"
    return None


def _decimals(value: float, places: int) -> str:
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _signed(text: str) -> str:
    return MINUS + text[1:] if text.startswith("-") else text


def _with_plus(text: str) -> str:
    if float(text) == 0:
        return text
    return _signed(text) if text.startswith("-") else f"+{text}"
