"""The one way to a terminal: what a file, a row, a model or an error says is shown there, and never steers it.

Paths, roles, keys and replies may hold escape sequences, and square brackets, which are markup to rich. `Terminal`
shows both as what they are; `print_json` writes the same guard into JSON. No other place makes a console or prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.text import Text

from tutelage.render.token_text import visible


class Terminal(Console):
    """A rich console that reads no markup in any text, and shows characters that would steer the terminal by name.

    Colours and the movements of progress bars are rich's own and pass.

    Args:
        stderr: write to standard error.
        file: write there.
        quiet: write nothing.
        width: in columns; None takes the terminal's.
    """

    def __init__(
        self, *, stderr: bool = False, file: IO[str] | None = None, quiet: bool = False, width: int | None = None
    ) -> None:
        super().__init__(
            stderr=stderr,
            file=file,
            quiet=quiet,
            width=width,
            markup=False,
            emoji=False,
            highlight=False,
            force_jupyter=False,  # a notebook would get a block of HTML for every line
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What rich makes of it, with every text printable."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control or text.isprintable():
                yield segment
            else:
                yield Segment(printable(text), style)

    def show(self, screen: RenderableType) -> None:
        """Print a screen part by part: tables as wide as there is room, lines of text as they are, never folded."""
        if isinstance(screen, Group):
            for renderable in screen.renderables:
                self.show(renderable)
        else:
            self.print(screen, soft_wrap=isinstance(screen, Text))

    def write_line(self, text: str, *, style: str = "") -> None:
        """Print a line as it is: it is never folded, so that a command in it can be copied from a log file, too."""
        self.print(Text(printable(text), style=style), soft_wrap=True)

    def log(self, *objects: Any, **_options: Any) -> None:
        """Each as a line: rich's own `log` would put the time and one of our files beside it, and fold it."""
        for line in objects:
            self.write_line(str(line))


def printable(text: str) -> str:
    """The text with names for what would steer a terminal; line ends and tabs stay."""
    return visible(text, line_ends=False)


def json_line(value: Any, *, encoding: str | None) -> str:
    """JSON on one line in which characters that would steer a terminal, or that `encoding` lacks, are escaped.

    Args:
        value: plain values.
        encoding: of where it is written; one that is not UTF gets ASCII.
    """
    text = json.dumps(value, ensure_ascii=not (encoding or "").lower().startswith("utf"))
    if not text.isprintable():  # in JSON from `dumps`, such characters stand inside of strings alone
        text = "".join(
            character if printable(character) == character else json.dumps(character)[1:-1] for character in text
        )
    return text + "\n"


def print_json(value: Any) -> None:
    """Write `value` to standard output as one line of JSON."""
    sys.stdout.write(json_line(value, encoding=sys.stdout.encoding))
