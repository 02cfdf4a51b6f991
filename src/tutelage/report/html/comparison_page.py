"""A comparison of replies on one offline page: who said what of which pair, and what all of it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import SaveError, cause_of
from tutelage.report import numbers as figures
from tutelage.report.html.offline import own_parts, template, write_in_one_move
from tutelage.report.html.rows_page import require_page_target
from tutelage.types import Message


@dataclass(frozen=True, slots=True)
class RaterLine:
    """One row of the table; `level` is 0 for what has a verdict, 1 for one person among several."""

    name: str
    level: int
    better_b: int
    ties: int
    better_a: int
    win_rate: str
    interval: str
    p_value: str
    verdict: str

    @property
    def pairs(self) -> int:
        """Those with a verdict."""
        return self.better_a + self.ties + self.better_b


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one rater said of one pair, and why, where it gave a reason."""

    rater: str
    words: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """One pair: its prompt, both replies, and what was said; `outcome` is what all who said something agree on."""

    address: str
    prompt: tuple[Message, ...]
    reply_a: str
    reply_b: str
    outcome: str
    opinions: tuple[Opinion, ...]


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """All that the page shows."""

    name_a: str
    name_b: str
    sentence: str
    raters: tuple[RaterLine, ...]
    notes: tuple[str, ...]
    pairs: tuple[ComparedPair, ...]
    pairs_left_out: int


def render_comparison(page: ComparisonPage) -> str:
    """The page as text; the same comparison gives the same text."""
    return template("comparison_page.html").render(
        page=page, figures=figures, shares=shares, **own_parts(style=("page.css", "comparison_page.css"), script=())
    )


def write_comparison(target: Path, page: ComparisonPage) -> int:
    """Write the page.

    Returns:
        Its size in bytes.

    Raises:
        ConfigError: it is a folder, or holds what is no page of ours.
        SaveError: it could not be written; an older page is untouched.
    """
    require_page_target(target)
    try:
        return write_in_one_move(render_comparison(page), target)
    except OSError as error:
        raise SaveError(
            "The page could not be written",
            where=str(target),
            found=cause_of(error),
            expected="a file in a folder that can be written to",
            fix="give a file in a folder with room, where you may write: --html FILE",
        ) from error


def shares(line: RaterLine) -> Sequence[tuple[str, float, float]]:
    """The parts of a rater's bar: what each stands for, where it begins and how long it is, in percent."""
    parts, begin = [], 0.0
    for kind, pairs in (("b", line.better_b), ("tie", line.ties), ("a", line.better_a)):
        length = 100 * pairs / line.pairs if line.pairs else 0.0
        parts.append((kind, round(begin, 3), round(length, 3)))
        begin += length
    return parts
