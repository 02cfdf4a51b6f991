"""`evaluate`: measures a run's models again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tutelage.cli.report import result_or_none
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
    from tutelage.api.run import Run as OpenedRun

    opened = OpenedRun(run)
    metrics = asdict(opened.evaluate(base=base))
    if as_json:
        print_json(metrics)
        return
    result = result_or_none(opened.folder) or {}
    no_metrics: dict[str, Any] = {"fields": {}}
    baseline = metrics if base else result.get("before", no_metrics)
    tuned = result.get("after", no_metrics) if base else metrics
    Terminal().print(before_after(baseline, tuned, title=f"{run}: {'before' if base else 'after'} measured just now"))


def _evaluate_adapters(run: str, adapters: list[str], *, base: bool, as_json: bool) -> None:
    if base:
        raise ConfigError(
            "--base and --adapter contradict each other", fix="leave --base out; the base is measured too"
        )
    from tutelage.builders.evaluation import evaluate_adapters
    from tutelage.builders.named_adapters import named_adapters

    metrics_by_name = evaluate_adapters(run, named_adapters(adapters), screen=Screen(Terminal(stderr=True)))
    rows = {name: asdict(metrics) for name, metrics in metrics_by_name.items()}
    if as_json:
        print_json(rows)
    else:
        Terminal().print(measures_table(rows, title=f"{run}: adapters on one base"))
