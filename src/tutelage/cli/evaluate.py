"""`evaluate`: measures a run's models again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli.report import read_result
from tutelage.cli.run_options import Adapters, AsJson, Run
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.report.console.result import before_after, measures_table
from tutelage.report.console.terminal import Terminal, print_json


def evaluate(
    run: Run,
    base: Annotated[bool, typer.Option("--base", help="Measure the original model instead.")] = False,
    adapter: Adapters = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's tuned model again, on the recipe's validation rows, task and general set.

    With --adapter NAME=FOLDER_OR_RUN: base, tuned and each adapter, on one loaded base, in one table.
    """
    if adapter:
        _evaluate_adapters(run, adapter, base=base, as_json=as_json)
        return
    from tutelage.builders.evaluation import evaluate_run

    measures = asdict(evaluate_run(run, base=base, screen=Screen(Terminal(stderr=True))))
    if as_json:
        print_json(measures)
        return
    recorded = read_result(Path(run)) or {}
    nothing: dict[str, Any] = {"fields": {}}
    before = measures if base else recorded.get("before", nothing)
    after = recorded.get("after", nothing) if base else measures
    Terminal().print(before_after(before, after, title=f"{run}: {'before' if base else 'after'} measured just now"))


def _evaluate_adapters(run: str, given: list[str], *, base: bool, as_json: bool) -> None:
    if base:
        raise ConfigError(
            "--base and --adapter contradict each other", fix="leave --base out; the base is measured too"
        )
    from tutelage.builders.evaluation import evaluate_adapters
    from tutelage.builders.named_adapters import named_adapters

    found = evaluate_adapters(run, named_adapters(given), screen=Screen(Terminal(stderr=True)))
    measured = {name: asdict(one) for name, one in found.items()}
    if as_json:
        print_json(measured)
    else:
        Terminal().print(measures_table(measured, title=f"{run}: adapters on one base"))
