"""The page of the dial: a drawing of gain against forgetting and a table of all that was measured, in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from tutelage.errors import SaveError, cause_of
from tutelage.report import numbers
from tutelage.report.dial import (
    LOSS,
    Dial,
    DialPoint,
    DialRow,
    Estimate,
    ForgettingKey,
    forgotten_text,
    gain_text,
)
from tutelage.report.html.dial_chart import NARROW, WIDE, dial_drawing
from tutelage.report.html.offline import own_parts, require_free_or_own, template, write_in_one_move
from tutelage.report.html.scores import MAIN
from tutelage.report.score_names import score_name
from tutelage.runs import folder as run_files
from tutelage.runs.divergence import PLACES, DivergenceMeasure
from tutelage.runs.uncertainty import ShareUncertainty


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, and its interval in words."""

    text: str
    range: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: a value of the dial."""

    label: str
    note: str
    cells: tuple[Cell, ...]
    is_knee: bool


def write_dial_page(run: Path, name: str, dial: Dial, rows: Mapping[str, DialRow]) -> Path:
    """Write `dial.html` into a run's folder, in one move.

    Args:
        run: the folder.
        name: of the run.
        dial: what was found.
        rows: by the text of the value, in the order of `dial.points`.

    Returns:
        The path of the page.

    Raises:
        ConfigError: a file of that name is there that is no page of ours.
        SaveError: the page could not be written; an older page is untouched.
    """
    target = run / run_files.DIAL_PAGE
    page = render(name, dial, rows)
    try:
        require_page_place(run)
        write_in_one_move(page, target)
    except OSError as error:
        raise SaveError(
            "The page of the dial could not be written",
            where=str(target),
            found=cause_of(error),
            expected="a run folder that can be written to, with room for about 50 KB",
            fix="see to room and to the right to write there, then ask again: what was measured is kept",
        ) from error
    return target


def require_page_place(run: Path) -> None:
    """Refuse a run's folder in which something stands where the page is to be, before anything is measured.

    Raises:
        ConfigError: that is so.
        OSError: it cannot be looked at.
    """
    target = run / run_files.DIAL_PAGE
    require_free_or_own(target, fix=f"move {target.name} away, then ask for the dial again")


def render(name: str, dial: Dial, rows: Mapping[str, DialRow]) -> str:
    """The page as text; the same figures give the same text."""
    keys = [
        (key, heading) for key, heading, _ in MAIN if any(row.metrics.get(key) is not None for row in rows.values())
    ]
    scores, fields = (_names(rows, group) for group in ("scores", "fields"))
    places = [place for place in PLACES if any(place in row.divergence for row in rows.values())]
    headings = [
        "Value",
        *(["Gained"] if dial.gain else []),
        *(["Forgot"] if dial.forgetting == "general" else []),
        *map(score_name, scores),
        *(heading for _, heading in keys),
        *fields,
        *(f"KL, {PLACES[place]}" for place in places),
    ]
    knee = None if dial.knee is None else dial.knee.value
    lines = [
        Line(
            point.label,
            _note(point, is_knee=point.value == knee),
            (
                *_changes(dial, point),
                *(_inner(rows[point.label], "scores", name) for name in scores),
                *(_main(rows[point.label], key) for key, _ in keys),
                *(_inner(rows[point.label], "fields", name) for name in fields),
                *(_moved(rows[point.label].divergence.get(place)) for place in places),
            ),
            is_knee=point.value == knee,
        )
        for point in dial.points
    ]
    return template("dial_page.html").render(
        name=name,
        dial=dial,
        headings=headings,
        lines=lines,
        beyond=any(point.value > 1 for point in dial.points),
        wide=Markup(dial_drawing(dial, WIDE)),  # noqa: S704 - made by ElementTree, which escapes all that it is given
        narrow=Markup(dial_drawing(dial, NARROW)),  # noqa: S704 - as above
        **own_parts(style=("page.css", "dial.css"), script=()),
    )


def _note(point: DialPoint, *, is_knee: bool) -> str:
    names = {0.0: "base", 1.0: "tuned"}
    return "knee" if is_knee else names.get(point.value, "exaggerated" if point.value > 1 else "")


def _changes(dial: Dial, point: DialPoint) -> Sequence[Cell]:
    cells = []
    if dial.gain is not None:
        cells.append(_gained(dial.gain, point.gain))
    if dial.forgetting == "general":  # a divergence is a column of its own
        cells.append(_forgot(dial.forgetting, point.forgotten))
    return cells


def _gained(key: str, estimate: Estimate | None) -> Cell:
    assert estimate is not None, "one of each point"
    if key != LOSS:
        return Cell(gain_text(key, estimate.number), _points(estimate))
    return Cell(gain_text(key, estimate.number), _range(estimate, numbers.loss_change))


def _forgot(key: ForgettingKey, estimate: Estimate | None) -> Cell:
    assert estimate is not None, "one of each point"
    return Cell(forgotten_text(key, estimate.number).removeprefix("+"), _points(estimate))


def _points(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return numbers.points_range(estimate.low, estimate.high)


def _range(estimate: Estimate, write: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{write(estimate.low)} to {write(estimate.high)}"


def _main(row: DialRow, key: str) -> Cell:
    number = row.metrics.get(key)
    if number is None:
        return Cell("–")
    if key == "heldout_loss":
        return Cell(numbers.loss(number))
    return Cell(numbers.percent(number), _share(row.uncertainty.shares.get(key)))


def _inner(row: DialRow, group: Literal["scores", "fields"], name: str) -> Cell:
    number = row.metrics.get(group, {}).get(name)
    shares = row.uncertainty.scores if group == "scores" else row.uncertainty.fields
    return Cell("–") if number is None else Cell(numbers.percent(number), _share(shares.get(name)))


def _names(rows: Mapping[str, DialRow], group: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row.metrics.get(group, {})))


def _share(share: ShareUncertainty | None) -> str:
    return "" if share is None or share.after is None else numbers.percent_range(share.after.low, share.after.high)


def _moved(measure: DivergenceMeasure | None) -> Cell:
    if measure is None:
        return Cell("–")
    return Cell(numbers.loss(measure.mean), _range(Estimate(measure.mean, measure.low, measure.high), numbers.loss))
