"""Options that the commands of a run share."""

from __future__ import annotations

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(help="The folder of a run, for example runs/quickstart.")]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", metavar="NAME=FOLDER_OR_RUN", help="Another adapter of the same base; may be given again."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs; progress goes to standard error.")]
