"""Rendered rows -> runs of tokens that share a colour, with what is invisible made visible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from tutelage.render.token_text import visible
from tutelage.report import numbers
from tutelage.runs.reading import RenderedRow, Token

MOST_TOKENS = 6000
MOST_TOKENS_OF_A_ROW = 800
"""Some 40 bytes a token: the rows stay under half of a page of 400 KB."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token as shown; `title` names its id, and its weight where that is neither 0 nor 1."""

    text: str
    title: str
    stop: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tokens of one kind. `partly`: trained with a weight other than 1."""

    trained: bool
    partly: bool
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    """One row in colour. `tokens` and `trained_tokens` count the whole row, shown or not."""

    address: str
    tokens: int
    trained_tokens: int
    hidden_tokens: int
    runs: tuple[Run, ...]


def view_rows(rows: Iterable[RenderedRow]) -> tuple[tuple[RowView, ...], int]:
    """The rows that fit on the page, in order, and how many were left out."""
    views: list[RowView] = []
    token_budget, left_out = MOST_TOKENS, 0
    for row in rows:
        if token_budget <= 0:
            left_out += 1
            continue
        view = view_row(row, most_tokens=min(token_budget, MOST_TOKENS_OF_A_ROW))
        token_budget -= view.tokens - view.hidden_tokens
        views.append(view)
    return tuple(views), left_out


def view_row(row: RenderedRow, *, most_tokens: int) -> RowView:
    """One row, its first `most_tokens` tokens grouped by trained, partly trained and context."""
    visible_tokens = row.tokens[:most_tokens]
    runs = tuple(
        Run(trained=trained, partly=partly, pieces=tuple(_piece(token) for token in group))
        for (trained, partly), group in groupby(
            visible_tokens, key=lambda token: (token.weight != 0, token.weight not in (0, 1))
        )
    )
    return RowView(
        address=row.address,
        tokens=len(row.tokens),
        trained_tokens=sum(token.weight != 0 for token in row.tokens),
        hidden_tokens=len(row.tokens) - len(visible_tokens),
        runs=runs,
    )


def _piece(token: Token) -> Piece:
    title = "no id" if token.id is None else str(token.id)
    if token.weight not in (0, 1):
        title += f", weight {numbers.significant(token.weight)}"
    return Piece(visible(token.text), title, token.stop)
