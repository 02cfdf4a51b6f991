"""A search among remedies for a terminal: what will be tried, what each cost and gave, and what was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tutelage.report.numbers import count, loss, percent, points_change, points_range

CHOSEN = "chosen"


def planned_table(rows: Sequence[tuple[str, str, float, str]]) -> Table:
    """Candidates before they are trained.

    Args:
        rows: name, what it changes, the tokens that its training goes through, and a remark.
    """
    table = _table("Candidates, in the order in which they are trained")
    table.add_column("candidate", no_wrap=True)
    table.add_column("changes", overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("")
    for name, changes, tokens, remark in rows:
        table.add_row(Text(name), Text(changes or "nothing"), count(round(tokens)), Text(remark))
    return table


def searched_table(record: Mapping[str, Any]) -> Table:
    """Candidates as they were measured: `guard.json`."""
    table = _table(f"Candidates, limit {100 * record['limit']:g} points of {record['split']['choice']} items")
    table.add_column("candidate", no_wrap=True)
    for heading in ("seconds", "task", "lost, points", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    chosen, tied = record["chosen"]["name"], record["chosen"]["tied"]
    for entry in record["candidates"]:
        if entry["name"] not in record["tried"]:
            continue
        if not entry["trials"]:
            table.add_row(Text(entry["name"]), "", "", "", "", Text(entry["problem"], style="yellow"))
        for trial in entry["trials"]:
            mark = CHOSEN if trial["name"] == chosen else "tied" if trial["name"] in tied else ""
            table.add_row(
                Text(trial["name"], style="bold" if mark == CHOSEN else ""),
                count(round(trial["seconds"])) + ("+" if entry.get("resumed") and trial["dial"] == 1 else ""),
                percent(trial["score"]) if trial["score_items"] else loss(-trial["score"]),
                points_change(trial["lost"]),
                points_range(trial["least"], trial["most"]),
                Text(mark, style="green" if mark == CHOSEN else "dim"),
            )
    return table


def search_notes(record: Mapping[str, Any]) -> list[str]:
    """What the table needs to be read with: the rule, what was left out, and what was not tried."""
    notes = [
        "Seconds are of the whole run with its measures; of a value of the dial, of measuring it."
        + (" + : of its last part." if any(entry.get("resumed") for entry in record["candidates"]) else "")
    ]
    if record["chosen"]["tied"]:
        notes.append("Tied: within one standard error of the best task score; fewer tokens, then less lost, decides.")
    notes += [f"Left out: {left_out['name']} ({left_out['why']})." for left_out in record["left_out"]]
    return notes


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
