"""Options of `train`."""

from __future__ import annotations

from typing import Annotated

import typer

MOST_PROCESSES = 1024
"""Of one machine. Our choice: a slip of the finger must not start more than a machine can hold."""

Recipe = Annotated[str | None, typer.Argument(help="A recipe (.toml); see recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that override the recipe: train.learning_rate=2e-5")
]
Size = Annotated[
    str | None, typer.Option("--size", help="Of a recipe with sizes: paper, as published, or laptop (the default).")
]
Resume = Annotated[str | None, typer.Option("--resume", help="Go on with this run from its last step.")]
Checkpoint = Annotated[
    str | None, typer.Option("--from", help="With --resume: go on from this checkpoint, such as step-000010.")
]
SkipStep = Annotated[
    bool, typer.Option("--skip-step", help="With --resume: leave out the step that the run was stopped before.")
]
Replay = Annotated[str | None, typer.Option("--replay", help="Run this run's settings again and compare every step.")]
Into = Annotated[str | None, typer.Option("--into", help="With --replay: the folder for it; left out, RUN.replay.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Prove the data, print the plan, load no model.")]
Explain = Annotated[str | None, typer.Option("--explain", help="Explain a setting or section, or 'all', and stop.")]
Strict = Annotated[bool, typer.Option("--strict", help="Any dropped row is an error.")]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes", min=1, max=MOST_PROCESSES, help="Share the model and every step among this many processes."
    ),
]


def with_size(overrides: list[str] | None, size: str | None) -> list[str]:
    """The overrides of a command line, with `--size` among them."""
    return [*(overrides or []), *([] if size is None else [f"size={size}"])]
