"""The table of measures for a terminal and a notebook: each share with its interval, each change with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from tutelage.report.divergence import divergence_sentence
from tutelage.report.health import SHORT_NAMES, health_keys, health_sentence, is_worth_a_line
from tutelage.report.likelihoods import likelihood_sentences, loss_cells
from tutelage.report.noise import noise_sentence
from tutelage.report.numbers import (
    GAP,
    loss,
    loss_change,
    percent,
    percent_change,
    percent_range,
    points_change,
    points_range,
)
from tutelage.report.score_names import score_name
from tutelage.runs.divergence import DivergenceMeasure, divergence_in
from tutelage.runs.losses import loss_measures_in
from tutelage.runs.multiple_choice import choice_measure_in
from tutelage.runs.noise import NoiseFloor, noise_in
from tutelage.runs.uncertainty import Range, ShareChange, ShareUncertainty, Uncertainty, uncertainty_in
from tutelage.runs.unchecked import unchecked_by_phase, unchecked_notes

MOST_NAME_COLUMNS = 16
"""What the names keep; longer ones are folded where there is no room."""

NAMES = {
    "exact_match": "whole row exact",
    "valid_json": "valid JSON",
    "general": "general set",
    "heldout_loss": "held-out loss",
}
STYLES = {"gained": "green", "lost": "yellow"}


@dataclass(frozen=True, slots=True)
class MeasuresTable:
    """Texts of a table; the first cell of a row is the name of what was measured, fields and capabilities indented."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def result_table(result: Mapping[str, Any], *, names: tuple[str, str] = ("before", "after")) -> MeasuresTable:
    """All that `result.json` says of before and after (see `train.result`), or of two models in the same form."""
    uncertainty, divergence, noise = uncertainty_in(result), divergence_in(result), noise_in(result)
    table = before_after(result["before"], result["after"], uncertainty, divergence, noise, names=names)
    losses = loss_measures_in(result)
    rows = table.rows
    if "heldout" in losses and uncertainty is not None:
        rate = losses["heldout"].all.per_token
        rows = tuple(loss_cells(rate, row) if row[0] == NAMES["heldout_loss"] else row for row in rows)
    likelihoods = likelihood_sentences(losses, choice_measure_in(result))
    return replace(table, rows=rows, notes=(*likelihoods, *table.notes, *unchecked_notes(unchecked_by_phase(result))))


def before_after(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    uncertainty: Uncertainty | None = None,
    divergence: Mapping[str, DivergenceMeasure] = MappingProxyType({}),
    noise: NoiseFloor | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
) -> MeasuresTable:
    """Measures before and after.

    Args:
        before: the fields of `evaluate.suite.Metrics`.
        after: the same.
        uncertainty: of the shares; with it intervals, changes and verdicts are there, too.
        divergence: of after from before, by place.
        noise: of the replies before.
        names: of the two columns.
    """
    health = health_sentence(
        before.get("health", {}),
        after.get("health", {}),
        all_well=not _health([before, after], uncertainty.health if uncertainty else {}),
    )
    measured_notes = tuple(filter(None, (health, divergence_sentence(divergence), noise_sentence(noise))))
    if uncertainty is None:
        return replace(several_models(dict(zip(names, (before, after), strict=True))), notes=measured_notes)
    level = _whole(uncertainty.level)
    rows = []
    for name, values, share in _measured({"before": before, "after": after}, uncertainty):
        sides = (share.before, share.after) if share else (None, None)
        cells = [cell for value, side in zip(values, sides, strict=True) for cell in (value.text, _range(side))]
        rows.append((name, *cells, *_change_cells(values, share.change if share else None)))
    headings = ("", names[0], level, names[1], level, "change", level, "verdict")
    return MeasuresTable(headings, tuple(rows), (*measured_notes, *_notes(uncertainty)))


def several_models(
    measured: Mapping[str, Mapping[str, Any]], uncertainties: Mapping[str, Uncertainty] | None = None
) -> MeasuresTable:
    """Measures of several models, a column each, and one for its interval.

    Args:
        measured: by the name of the model.
        uncertainties: by the same names; the interval of each is that of `after`.
    """
    shown = uncertainties or {}
    headings = [""]
    for model in measured:
        headings += [model, _whole(shown[model].level)] if model in shown else [model]
    by_model = {model: [share for _, _, share in _measured(measured, shown[model])] for model in shown}
    rows = []
    for at, (name, values, _) in enumerate(_measured(measured, None)):  # a capability may be called as a field is
        cells = [name]
        for model, value in zip(measured, values, strict=True):
            share = by_model[model][at] if model in shown else None
            cells += [value.text, _range(share.after if share else None)] if model in shown else [value.text]
        rows.append(tuple(cells))
    return MeasuresTable(tuple(headings), tuple(rows))


@dataclass(frozen=True, slots=True)
class Drawn:
    """The table for a terminal: of 80 columns with all, of fewer without the intervals of single shares."""

    table: MeasuresTable
    title: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(range(len(self.table.headings)))
        if self._width(columns) > options.max_width:
            # What is left last: the change with its interval, and the verdict.
            columns = [
                at for at in columns if not _is_interval(self.table, at) or self.table.headings[at - 1] == "change"
            ]
        yield self._drawn(columns)

    def _follows_change(self, column: int) -> bool:
        return self.table.headings[column - 1] == "change"

    def _width(self, columns: Sequence[int]) -> int:
        widths = [max(cell_len(row[at]) for row in (self.table.headings, *self.table.rows)) for at in columns]
        return min(widths[0], MOST_NAME_COLUMNS) + sum(width + 2 for width in widths[1:])

    def _drawn(self, columns: Sequence[int]) -> Table:
        drawn = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            show_edge=False,
            collapse_padding=True,
            pad_edge=False,
            caption="\n".join(self.table.notes) or None,
            caption_justify="left",
            caption_style="dim",
        )
        for at in columns:
            left = at == 0 or self.table.headings[at] == "verdict"
            drawn.add_column(self.table.headings[at], justify="left" if left else "right", no_wrap=at > 0)
        for row in self.table.rows:
            drawn.add_row(*(Text(row[at], style=self._style(row, at)) for at in columns))
        return drawn

    def _style(self, row: Sequence[str], at: int) -> str:
        if at == 0:
            return "dim" if row[0].startswith(" ") else ""
        return "dim" if _is_interval(self.table, at) else STYLES.get(row[at], "")


def _is_interval(table: MeasuresTable, column: int) -> bool:
    return table.headings[column].endswith("%")


@dataclass(frozen=True, slots=True)
class _Value:
    number: float | None
    write: Callable[[float], str]
    write_change: Callable[[float], str]

    @property
    def text(self) -> str:
        return "-" if self.number is None else self.write(self.number)


def _measured(
    measured: Mapping[str, Mapping[str, Any]], uncertainty: Uncertainty | None
) -> list[tuple[str, list[_Value], ShareUncertainty | None]]:
    """What was measured of any model: its name, each model's value, and the uncertainty of it."""
    columns = list(measured.values())
    found = _inner(columns, "scores", uncertainty.scores if uncertainty else {}, score_name)
    for key, label in NAMES.items():
        write, write_change = (loss, loss_change) if key == "heldout_loss" else (percent, points_change)
        values = [_Value(column.get(key), write, write_change) for column in columns]
        if any(value.number is not None for value in values):
            found.append((label, values, uncertainty.shares.get(key) if uncertainty else None))
        if key == "exact_match":
            found += _inner(columns, "fields", uncertainty.fields if uncertainty else {}, "  {}".format)
        if key == "general":
            found += _inner(columns, "capabilities", uncertainty.capabilities if uncertainty else {}, "  {}".format)
    found += _inner(columns, "lm_eval", uncertainty.lm_eval if uncertainty else {}, "{}".format)
    for name in dict.fromkeys(name for column in columns for name in column.get("lm_eval_numbers", {})):
        values = [_Value(column.get("lm_eval_numbers", {}).get(name), loss, loss_change) for column in columns]
        found.append((name, values, None))
    return found + _health(columns, uncertainty.health if uncertainty else {})


def _health(
    columns: Sequence[Mapping[str, Any]], shares: Mapping[str, ShareUncertainty]
) -> list[tuple[str, list[_Value], ShareUncertainty | None]]:
    """Of replies in good health, each share that is bad or moved."""
    sides = [column.get("health", {}) for column in columns]
    found = []
    for name, question in health_keys(*sides):
        numbers, share = [side.get(name, {}).get(question) for side in sides], shares.get(f"{name} {question}")
        if is_worth_a_line(numbers, share):
            values = [_Value(number, percent, points_change) for number in numbers]
            found.append((f"{name}: {SHORT_NAMES[question]}", values, share))
    return found


def _inner(
    columns: Sequence[Mapping[str, Any]],
    kind: str,
    shares: Mapping[str, ShareUncertainty],
    label: Callable[[str], str],
) -> list[tuple[str, list[_Value], ShareUncertainty | None]]:
    """Of each field, score or capability that any model has."""
    names = dict.fromkeys(name for column in reversed(columns) for name in column.get(kind, {}))
    return [
        (
            label(name),
            [_Value(column.get(kind, {}).get(name), percent, points_change) for column in columns],
            shares.get(name),
        )
        for name in names
    ]


def _whole(share: float) -> str:
    return f"{share * 100:.0f}{GAP}%"


def _range(interval: Range | None) -> str:
    return "" if interval is None else percent_range(interval.low, interval.high)


def _change_cells(values: Sequence[_Value], change: ShareChange | None) -> tuple[str, str, str]:
    before, after = (value.number for value in values)
    if before is None or after is None:
        return "", "", ""
    moved = values[-1].write_change(after - before)
    if change is None:
        return moved, "", ""
    return moved, points_range(change.range.low, change.range.high), change.verdict


def change_notes(uncertainty: Uncertainty) -> list[str]:
    """Of each share, in words: how far it moved, the interval of that, and the verdict."""
    return [
        f"{NAMES.get(name, name)} {points_change((change.fixed - change.broken) / share.items)} "
        f"({points_range(change.range.low, change.range.high)}) {change.verdict}"
        for name, share in uncertainty.shares.items()
        if (change := share.change) is not None
    ]


def _notes(uncertainty: Uncertainty) -> list[str]:
    """How to read the verdicts, and what those that are not shown would have needed."""
    if not uncertainty.has_verdicts:
        return []
    notes = [
        f"Changes in points. Gained, lost: after Holm's adjustment for {uncertainty.families}. "
        f"Kept: within {percent_change(uncertainty.margin).removeprefix('+')} on either side."
    ]
    main = {NAMES.get(name, name): share for name, share in uncertainty.shares.items()}
    scores = {score_name(name): share for name, share in uncertainty.scores.items()}
    names_by_smallest: dict[str, list[str]] = {}
    parts = (scores, main, uncertainty.fields, uncertainty.capabilities, uncertainty.lm_eval)
    for name, share in (item for part in parts for item in part.items()):
        if share.change is not None and share.change.verdict == "not shown":
            smallest = share.change.smallest_detectable
            words = f"none ({share.items} items)" if smallest is None else points_change(smallest).removeprefix("+")
            names_by_smallest.setdefault(words, []).append(name)
    if names_by_smallest:
        told = "; ".join(f"{', '.join(names)} {words}" for words, names in names_by_smallest.items())
        notes.append(
            f"Not shown: these items cannot tell. The smallest change they show in {_whole(uncertainty.power)} of such "
            f"runs: {told}."
        )
    return notes
