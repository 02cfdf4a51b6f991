"""Asks a person in a terminal: two replies side by side, one key for each answer."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tutelage.evaluate.pairwise.rating import Question, Rating, Said
from tutelage.report.console.terminal import Terminal
from tutelage.types import Message

NARROWEST_PAIR = 70
"""Columns below which the replies stand one below the other."""
KEYS: dict[str, Said] = {"1": "left", "2": "right", "t": "tie", "s": "skip"}
HINT = "1 left is better   2 right is better   t tie   s skip   u undo   q quit"
ANSWERED: dict[Said, str] = {"left": "left is better", "right": "right is better", "tie": "tie", "skip": "skipped"}


def rate_in_terminal(rating: Rating, out: Terminal, read_key: Callable[[], str]) -> None:
    """Ask until all is rated and confirmed, or the rater quits, by Ctrl-C as well, or the input ends.

    Args:
        rating: of the rater.
        out: where questions are printed.
        read_key: the next key; raises EOFError where the input has ended.

    Raises:
        SaveError: a verdict could not be saved.
    """
    try:
        while (question := rating.question()) is not None or _takes_back_last(rating, out, read_key):
            if question is None:
                continue
            out.print(_drawn(question, stacked=out.width < NARROWEST_PAIR))
            if not _answered(rating, question, out, read_key):
                break
    except (EOFError, KeyboardInterrupt):
        out.print()


def _takes_back_last(rating: Rating, out: Terminal, read_key: Callable[[], str]) -> bool:
    """Whether the rater wants the last verdict back, now that all is rated."""
    if not rating.can_undo:
        return False
    out.print(Text("all is rated: u takes back the last verdict, any other key ends", style="bold"))
    return read_key().strip().lower() == "u" and rating.undo()


def _answered(session: Rating, question: Question, out: Terminal, read_key: Callable[[], str]) -> bool:
    """Read keys until one says something; False to quit.

    Raises:
        EOFError: the input has ended.
        SaveError: a verdict could not be saved.
    """
    while True:
        key = read_key().strip().lower()
        if key == "q":
            return False
        if key == "u":
            if session.undo():
                out.print(Text("taken back; once more:", style="dim"))
                return True
            out.print(Text("there is nothing to take back", style="dim"))
        elif key in KEYS:
            session.say(question.pair, KEYS[key])
            out.print(Text(ANSWERED[KEYS[key]], style="bold"))
            return True
        elif key:
            out.print(Text(HINT, style="dim"))


def _drawn(question: Question, *, stacked: bool) -> RenderableType:
    return Group(
        Rule(Text(question.progress), style="dim"),
        *(_turn(message) for message in question.pair.prompt),
        _stacked(question) if stacked else _side_by_side(question),
        Text(HINT, style="dim"),
    )


def _turn(message: Message) -> RenderableType:
    return Group(Text(message.role, style="dim"), Padding(Text(message.content or ""), (0, 0, 1, 2)))


def _side_by_side(question: Question) -> RenderableType:
    table = Table(expand=True, pad_edge=False)
    for heading in ("1  left", "2  right"):
        table.add_column(heading, ratio=1, overflow="fold")
    table.add_row(_reply(question.left), _reply(question.right))
    return table


def _stacked(question: Question) -> RenderableType:
    return Group(
        Rule(Text("1  left (first)"), align="left"),
        _reply(question.left),
        Rule(Text("2  right (second)"), align="left"),
        _reply(question.right),
        Rule(),
    )


def _reply(text: str) -> Text:
    return Text(text) if text.strip() else Text("(says nothing)", style="dim italic")
