"""The health of replies in words: what each share of it is called, and their lengths in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.report.numbers import count, percent
from tutelage.runs.health import QUESTIONS
from tutelage.runs.uncertainty import ShareUncertainty

SHORT_NAMES = {"ended": "ended", "not_empty": "not empty", "no_loop": "no loop", "same_language": "language"}
NAMES = {
    "ended": "Replies that the model ended",
    "not_empty": "Replies that are not empty",
    "no_loop": "Replies without a loop at the end",
    "same_language": "Replies in the language asked for",
}
SETS = {"task": "task", "general": "general set"}

BAD_BELOW = 0.95
"""A share of replies in good health that is worth a line in a terminal even where it did not move. Our choice."""

REPETITION_MOVES = 0.05
"""A change of the mean repetition that is worth being said. Our choice."""


def health_keys(*sides: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sets and questions that any side has."""
    for name in dict.fromkeys(name for side in sides for name in side):
        for question in QUESTIONS:
            if any(side.get(name, {}).get(question) is not None for side in sides):
                yield name, question


def is_worth_a_line(shares: list[float | None], uncertainty: ShareUncertainty | None) -> bool:
    """Whether the share is bad in any model, or shown to have moved."""
    change = uncertainty.change if uncertainty is not None else None
    moved = change is not None and change.verdict in ("gained", "lost")
    return moved or any(share is not None and share < BAD_BELOW for share in shares)


def health_sentence(before: Mapping[str, Any], after: Mapping[str, Any], *, all_well: bool = False) -> str | None:
    """How long the replies are, and how much they repeat where that moved; None where it was not measured.

    Args:
        before: the figures by set.
        after: the same.
        all_well: no share of them is bad or moved, which is said.
    """
    parts = []
    for name in dict.fromkeys((*before, *after)):
        sides = [side[name] for side in (before, after) if side.get(name, {}).get("median_tokens") is not None]
        if not sides:
            continue
        lengths = [f"{count(round(side['median_tokens']))} ({count(round(side['tokens_90']))})" for side in sides]
        parts.append(f"{SETS.get(name, name)} {_moved(lengths)}{_repetition(sides)}")
    if not parts:
        return None
    well = f"; at least {percent(BAD_BELOW)} are in good health" if all_well else ""
    return f"Tokens in replies, the median (90 % have at most): {'; '.join(parts)}{well}."


def _repetition(sides: list[Mapping[str, Any]]) -> str:
    shares = [side["repetition"] for side in sides if side.get("repetition") is not None]
    if len(shares) < 2 or abs(shares[1] - shares[0]) < REPETITION_MOVES:
        return ""
    return f", repeated {_moved([percent(share) for share in shares])}"


def _moved(texts: list[str]) -> str:
    return " \N{RIGHTWARDS ARROW} ".join(texts)
