"""Options that the commands of a run share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Run = Annotated[str, typer.Argument(help="The folder of a run, for example runs/quickstart.")]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter", metavar="NAME=FOLDER_OR_RUN", help="Another adapter of the same base; may be given again."
    ),
]
MostForgotten = Annotated[
    float | None,
    typer.Option(
        "--fail-if-forgets",
        min=0.0,
        max=1.0,
        help="Exit with status 1 if the general set lost more than this share of its items: 0.05 is 5 points.",
    ),
]
LmEval = Annotated[
    list[str] | None,
    typer.Option(
        "--lm-eval",
        metavar="TASK,...",
        help=r"Tasks of lm-eval (pip install 'tutelage\[lm-eval]'), by name or as YAML files; may be given again.",
    ),
]
DialValues = Annotated[
    str | None,
    typer.Option(
        "--dial",
        metavar="0,0.25,...,1",
        help="Measure values between the base (0) and what was trained (1), without training again.",
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        min=0.0,
        max=1.0,
        help="With --dial: name the largest value that lost at most this share of the general set; 0.03 unless given.",
    ),
]
EngineName = Annotated[
    Literal["own", "vllm"],
    typer.Option("--engine", help="Who replies: our engine, or vLLM where it is installed and there is a GPU."),
]
SaveDial = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--save-dial",
        metavar="VALUE OUT",
        help="With --dial: write the model at this value, or at the knee, to the folder OUT.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs; progress goes to standard error.")]
