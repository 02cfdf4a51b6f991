from __future__ import annotations

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from tutelage.report.console.terminal import Terminal, json_line

HOSTILE = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e\x7f[/x][bold]\r"


def shown(*things: object, colours: bool = False) -> str:
    out = io.StringIO()
    terminal = Terminal(file=out)
    for thing in things:
        terminal.print(thing)
    terminal.write_line(HOSTILE)
    return out.getvalue()


def test_b24_nothing_steers_the_terminal():
    table = Table("head " + HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    text = shown(HOSTILE, Text(HOSTILE), table)
    for steering in ("\x1b", "\x9b", "\x07", "\x7f", "\u202e", "\r"):
        assert steering not in text
    assert "‹U+001B›" in text


def test_b23_square_brackets_are_text_everywhere():
    table = Table("[/x]", title="a[/t]")
    table.add_row("[bold]cell[/bold]")
    text = shown("see a[/x].jsonl", "data[bold].jsonl", table, ":smile:")
    for words in ("see a[/x].jsonl", "data[bold].jsonl", "[bold]cell[/bold]", "a[/t]", ":smile:"):
        assert words in text


def test_a_line_is_never_folded():
    out = io.StringIO()
    Terminal(file=out).write_line("tutelage train --resume " + "a/" * 100)
    assert out.getvalue().count("\n") == 1


def test_a_note_is_a_line_without_the_time_and_a_file_of_ours():
    out = io.StringIO()
    Terminal(file=out, width=80).log("Prepared before: " + "a/" * 100)
    assert out.getvalue() == "Prepared before: " + "a/" * 100 + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", None])
def test_b24_json_steers_nothing_and_says_the_same(encoding: str | None):
    value = {HOSTILE: [HOSTILE, "é 😀 \udcff\u2028", "a\u200db"]}
    line = json_line(value, encoding=encoding)
    assert json.loads(line) == value
    assert line.removesuffix("\n").replace("\u200d", "").isprintable()
    if encoding != "utf-8":
        assert line.isascii()
    else:
        assert "é 😀" in line
