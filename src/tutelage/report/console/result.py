"""The end of a run on one terminal screen: before and after, examples side by side, speed, memory, drops, what next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.errors import shell_word
from tutelage.report.console.measures import Drawn, result_table
from tutelage.report.numbers import byte_size, count, duration, times

SHOWN_CHARACTERS = 160


def final_screen(result: Mapping[str, Any]) -> RenderableType:
    """Draw the measures and examples of `result.json` (see `train.result`) for a terminal."""
    parts: list[RenderableType] = [Drawn(result_table(result), title=str(result["name"]))]
    if result["examples"]:
        parts.append(_examples(result["examples"]))
    return Group(*parts)


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
        "time": duration(result["elapsed_seconds"])
        + (f", resumed {times(resumed)}" if (resumed := result.get("resumed")) else ""),
        "report": f"{folder}/report.html",
        "talk to it": f"{program} chat {shell_word(str(folder))} --compare",
    }
    width = max(map(len, lines)) + 2
    return [Text(), *(Text.assemble((name.ljust(width), "bold"), value) for name, value in lines.items())]
