"""The end of a run on one terminal screen: before and after, examples side by side, speed, memory, drops, what next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.errors import shell_word
from tutelage.report.numbers import byte_size, count, duration, loss, percent

SHOWN_CHARACTERS = 160


def final_screen(result: Mapping[str, Any]) -> RenderableType:
    """Draw the measures and examples of `result.json` (see `train.result`) for a terminal."""
    parts: list[RenderableType] = [before_after(result["before"], result["after"], title=str(result["name"]))]
    if result["examples"]:
        parts.append(_examples(result["examples"]))
    return Group(*parts)


def before_after(before: Mapping[str, Any], after: Mapping[str, Any], *, title: str) -> Table:
    """A table of measures; what was not measured stays out."""
    return measures_table({"before": before, "after": after}, title=title)


def measures_table(measured: Mapping[str, Mapping[str, Any]], *, title: str) -> Table:
    """Measures of several models, a column each; what was not measured of any stays out."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in measured:
        table.add_column(name, justify="right")
    for label, values in measure_rows(measured):
        table.add_row(Text(label, style="dim" if label.startswith(" ") else ""), *values)
    return table


def measure_rows(measured: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The rows of that table: what was measured, and for each model its number for people; fields are indented."""
    rows: list[tuple[str, list[str]]] = []
    names = {
        "exact_match": "whole row exact",
        "valid_json": "valid JSON",
        "general": "general set",
        "heldout_loss": "held-out loss",
    }
    columns = list(measured.values())
    for key, label in names.items():
        write = loss if key == "heldout_loss" else percent
        if any(column.get(key) is not None for column in columns):
            rows.append((label, [_or_dash(column.get(key), write) for column in columns]))
        if key == "exact_match":
            for name in columns[-1].get("fields", {}):
                values = [_or_dash(column.get("fields", {}).get(name), percent) for column in columns]
                rows.append((f"  {name}", values))
    return rows


def _or_dash(value: Any, write: Any) -> str:
    return "-" if value is None else str(write(value))


def _examples(examples: list[Mapping[str, Any]]) -> RenderableType:
    table = Table(show_lines=True, expand=True)
    for title in ("asked", "before", "after", "wanted"):
        table.add_column(title, ratio=1, overflow="fold")
    for example in examples:
        cells = [_short(example.get(key)) for key in ("prompt", "before", "after", "reference")]
        right = example.get("after") == example.get("reference")
        cells[2].stylize("green" if right else "yellow")
        table.add_row(*cells)
    return table


def _short(value: Any) -> Text:
    text = "-" if value is None else str(value)
    return Text(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ...")


def final_facts(result: Mapping[str, Any], folder: Path, *, program: str) -> list[Text]:
    """What the run took and what to do next, a line each, to be printed without folding: commands are copied.

    Args:
        result: of the run.
        folder: the run's.
        program: what the reader types to run us.
    """
    dropped = result["dropped"]
    lines = {
        "speed": f"{result['tokens_per_second']:,.0f} tokens/s in training",
        "peak memory": byte_size(result["peak_bytes"]),
        "trained tokens": f"{count(result['trained_tokens'])} of {count(result['total_tokens'])} fed",
        "dropped rows": ", ".join(f"{number} {reason}" for reason, number in dropped.items()) or "none",
        "time": duration(result["elapsed_seconds"]),
        "report": f"{folder}/report.html",
        "talk to it": f"{program} chat {shell_word(str(folder))} --compare",
    }
    width = max(map(len, lines)) + 2
    return [Text(), *(Text.assemble((name.ljust(width), "bold"), value) for name, value in lines.items())]
