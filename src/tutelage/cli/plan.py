"""`plan`: bytes and seconds before anything is loaded."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from tutelage import config
from tutelage.cli.train_options import Size, with_size
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError
from tutelage.report.console.terminal import Terminal, print_json


def plan(
    recipe: Annotated[str | None, typer.Argument(help="A recipe (.toml); left out, say --model.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that override the recipe: pack.row_tokens=1024")
    ] = None,
    *,
    size: Size = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model without a recipe: a name, a folder, or a config.json alone.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="With --model: full, lora, qlora or prompt.")] = "full",
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, max=LARGEST_COUNT, help="With --model: tokens of a row, one document.")
    ] = 2048,
    precision: Annotated[str, typer.Option("--precision", help="With --model: auto, bf16 or fp32.")] = "auto",
    memory_gb: Annotated[
        float | None,
        typer.Option("--memory-gb", min=0.1, max=1e6, help="Plan for this much memory, not for what is free here."),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Time a few layers for about 10 s.")] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Each figure with its formula and source.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a run needs, how long it takes and what would make it fit, before anything is loaded.

    Try: tutelage plan recipes/lora.toml --no-probe
    A model that is not here: tutelage plan --model FOLDER_OR_CONFIG_JSON --method lora --tokens 4096
    """
    if (recipe is None) == (model is None):
        raise ConfigError(
            "A plan is of a recipe, or of a model alone",
            found="neither" if recipe is None else f"{recipe} together with --model {model}",
            expected="tutelage plan RECIPE.toml, or tutelage plan --model NAME",
            fix="give one of them",
        )
    from tutelage.api.actions import plan as api_plan
    from tutelage.builders.planning import of_model
    from tutelage.plan.console import explanation, plan_screen

    out = Terminal(stderr=as_json)
    with Terminal(stderr=True).status("reading") as status:

        def log(text: str) -> None:
            status.update(Text(text))

        if recipe is not None:
            settings = config.load(recipe, with_size(overrides, size))
            memory_plan = api_plan(settings, memory_gb=memory_gb, probe=probe, log=log)
        else:
            assert model is not None
            memory_plan = of_model(model, method, tokens, precision, memory_gb=memory_gb, probe=probe, log=log)
    if as_json:
        print_json(memory_plan.as_dict())
        return
    out.print(plan_screen(memory_plan))
    if explain:
        out.print(explanation(memory_plan))
