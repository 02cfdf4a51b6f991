"""`evaluate`: measures a run's models again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tutelage.cli.report import result_or_none
from tutelage.cli.run_options import Adapters, AsJson, MostForgotten, Run
from tutelage.errors import ConfigError
from tutelage.report.console.measures import Drawn, before_after, several_models
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files
from tutelage.runs.uncertainty import Uncertainty


def evaluate(
    run: Run,
    base: Annotated[bool, typer.Option("--base", help="Measure the original model instead.")] = False,
    adapter: Adapters = None,
    most_forgotten: MostForgotten = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's tuned model again, on the recipe's validation rows, task and general set.

    With --adapter NAME=FOLDER_OR_RUN: base, tuned and each adapter, on one loaded base, in one table.
    """
    if adapter:
        if most_forgotten is not None:
            raise ConfigError(
                "--fail-if-forgets and --adapter contradict each other", fix="ask for one of the two at a time"
            )
        _evaluate_adapters(run, adapter, base=base, as_json=as_json)
        return
    from tutelage.builders.evaluation import evaluate_beside_saved
    from tutelage.evaluate.uncertainty import uncertainty_of

    folder = run_files.existing_run_folder(run)
    measured, saved = evaluate_beside_saved(folder, base=base, screen=Screen(Terminal(stderr=True)))
    metrics = asdict(measured.metrics)
    result = result_or_none(folder) or {}
    no_metrics: dict[str, Any] = {"fields": {}}
    if base:
        before, after = metrics, result.get("after", no_metrics)
        uncertainty = uncertainty_of(measured.outcomes, saved)
    else:
        before, after = result.get("before", no_metrics), metrics
        uncertainty = uncertainty_of(saved, measured.outcomes)
    if as_json:
        print_json(metrics)
    else:
        title = f"{run}: {'before' if base else 'after'} measured just now"
        Terminal().print(Drawn(before_after(before, after, uncertainty), title=title))
    if most_forgotten is not None:
        exit_if_forgot(uncertainty, most_forgotten)


def exit_if_forgot(uncertainty: Uncertainty | None, limit: float) -> None:
    """Say what became of the general set, and exit with status 1 where it lost more than `limit`.

    Raises:
        ConfigError: it was not measured before and after.
    """
    from tutelage.evaluate.gate import forgetting_gate

    gate = forgetting_gate(uncertainty, limit)
    Terminal(stderr=True).print(gate.sentence, style="yellow" if gate.tripped_by else "green", soft_wrap=True)
    if gate.tripped_by is not None:
        raise typer.Exit(1)


def _evaluate_adapters(run: str, adapters: list[str], *, base: bool, as_json: bool) -> None:
    if base:
        raise ConfigError(
            "--base and --adapter contradict each other", fix="leave --base out; the base is measured too"
        )
    from tutelage.builders.evaluation import evaluate_adapters
    from tutelage.builders.named_adapters import named_adapters
    from tutelage.evaluate.uncertainty import uncertainty_of

    found = evaluate_adapters(run, named_adapters(adapters), screen=Screen(Terminal(stderr=True)))
    rows = {name: asdict(measured.metrics) for name, measured in found.items()}
    if as_json:
        print_json(rows)
        return
    uncertainties = {name: uncertainty_of({}, measured.outcomes) for name, measured in found.items()}
    Terminal().print(Drawn(several_models(rows, uncertainties), title=f"{run}: adapters on one base"))
