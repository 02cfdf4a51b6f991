"""What `--help` shows is what was written: nothing in brackets is taken for a style and lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.support.commands import Ran
from tutelage.cli.app import app

BRACKETS = re.compile(r"\[[a-z][a-z0-9_.-]*\]")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that call it. Typer has click's classes as its own, so none is asked for."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(get_command(app)))


def written(command: Any) -> list[str]:
    """What stands in brackets in the texts of a command and of its options."""
    texts = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
    return [found for text in texts for found in BRACKETS.findall(text.replace("\\[", "["))]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_brackets_are_shown(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert shown.exit_code == 0, shown.output
    output = " ".join(shown.output.split())
    assert [found for found in written(COMMANDS[path]) if found not in output] == []


def test_there_are_brackets_to_show() -> None:
    assert {path for path, command in COMMANDS.items() if written(command)} >= {("evaluate",), ("curate",)}


def test_a_value_that_is_no_choice_is_answered_with_the_nearest(run: Callable[..., Ran]) -> None:
    ran = run("compare", "no-run", "--by", "jugde")
    assert ran.code == 2
    first, *_ = ran.err.splitlines()
    assert first.startswith("error: Invalid value for '--by': 'jugde' is not one of ")
    assert first.endswith("Did you mean 'judge'?")
    assert "Did you mean" not in run("compare", "no-run", "--by", "x").err
