"""`evaluate`: measures a run's models again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli.evaluated import as_one_model, notes_of
from tutelage.cli.report import result_or_none
from tutelage.cli.run_options import Adapters, AsJson, DialValues, EngineName, LmEval, Margin, MostForgotten, SaveDial
from tutelage.errors import ConfigError, SaveError
from tutelage.report.console.measures import Drawn, result_table, several_models
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files
from tutelage.runs.uncertainty import Uncertainty

MANY = ("several models", "other questions")


def evaluate(
    models: Annotated[list[str], typer.Argument(help="A run's folder; or several of runs, models and adapters.")],
    *,
    base: Annotated[bool, typer.Option("--base", help="Measure the run's original model instead.")] = False,
    adapter: Adapters = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Rows whose replies are compared.")] = None,
    general: Annotated[list[str] | None, typer.Option("--general", help="A set of prompts with checks.")] = None,
    validation: Annotated[list[str] | None, typer.Option("--validation", help="Rows to measure the loss on.")] = None,
    lm_eval: LmEval = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: evaluate.max_new_tokens=64; with other questions.")
    ] = None,
    most_forgotten: MostForgotten = None,
    dial: DialValues = None,
    margin: Margin = None,
    save_dial: SaveDial = None,
    engine: EngineName = "own",
    as_json: AsJson = False,
) -> None:
    """Measure a run's tuned model again, on the recipe's validation rows, task and general set.

    With --adapter NAME=FOLDER_OR_RUN: base, tuned and each adapter, on one loaded base, in one table.
    With --dial 0,0.25,0.5,0.75,1: the model at values between base and tuned, in a table and on a page, dial.html;
    --save-dial 0.5 OUT keeps one of them as a model.
    With --lm-eval gsm8k,arc_easy: tasks of EleutherAI's lm-evaluation-harness; a run alone beside its base.
    With several models, or questions of your own: each is asked the same, the first is what the others are held
    against. Try: tutelage evaluate smollm2-135m runs/quickstart --general datasets/general.jsonl
    """
    asks_others = bool(task or general or validation or overrides or lm_eval)
    _refuse_contradictions(
        {
            "--base": base,
            "--adapter": bool(adapter),
            "several models": len(models) > 1,
            "other questions": asks_others,
            "--fail-if-forgets": most_forgotten is not None,
            "--dial": dial is not None,
            "--engine vllm": engine == "vllm",
        }
    )
    if dial is not None or margin is not None or save_dial is not None:
        from tutelage.cli.dial import evaluate_dial

        evaluate_dial(models[0], dial, margin=margin, save=save_dial, as_json=as_json)
        return
    if adapter:
        _evaluate_adapters(models[0], adapter, as_json=as_json)
        return
    if len(models) > 1 or asks_others:
        asked = (tuple(validation or ()), tuple(task or ()), tuple(general or ()), _task_names(lm_eval))
        _evaluate_together(models, asked, overrides or [], most_forgotten=most_forgotten, as_json=as_json)
        return
    by_vllm = engine == "vllm"
    _evaluate_run(models[0], base=base, by_vllm=by_vllm, most_forgotten=most_forgotten, as_json=as_json)


def _task_names(listed: list[str] | None) -> tuple[str, ...]:
    """Names of lm-eval's tasks, each from a list with commas."""
    return tuple(name.strip() for names in listed or () for name in names.split(",") if name.strip())


def _evaluate_together(
    models: list[str],
    asked: tuple[tuple[str, ...], ...],
    overrides: list[str],
    *,
    most_forgotten: float | None,
    as_json: bool,
) -> None:
    from tutelage.builders.compared_models import Questions
    from tutelage.cli.evaluate_models import evaluate_together

    if most_forgotten is not None and len(models) != 2:
        raise ConfigError(
            "What was forgotten is what one model lacks when it is compared with another",
            where="--fail-if-forgets",
            found=f"{len(models)} models",
            expected="two: the one before, and the one after",
            fix="name the base first, then the model",
        )
    uncertainty = evaluate_together(models, Questions(*asked), overrides, as_json=as_json)
    if most_forgotten is not None:
        exit_if_forgot(uncertainty, most_forgotten)


def _refuse_contradictions(given: Mapping[str, bool]) -> None:
    contradictions = (
        ("--base", "--adapter", "leave --base out; the base is measured too"),
        ("--fail-if-forgets", "--adapter", "ask for one of the two at a time"),
        ("--base", "several models", "name the base among the models"),
        ("--base", "other questions", "name the base instead of the run"),
        ("--adapter", "several models", "name the adapters among the models"),
        ("--adapter", "other questions", "name the adapters among the models"),
        ("--dial", "--base", "leave --base out; the base is measured too"),
        ("--dial", "--adapter", "ask for one of the two at a time"),
        ("--dial", "--fail-if-forgets", "leave the second out; --margin says what may be lost"),
        ("--dial", "several models", "name one run"),
        ("--dial", "other questions", "leave them out; the run's own are asked"),
        *(("--engine vllm", other, "leave --engine out") for other in ("--dial", "--adapter", *MANY)),
    )
    for first, second, fix in contradictions:
        if given[first] and given[second]:
            raise ConfigError(f"{first} and {second} contradict each other", fix=fix)


def _evaluate_run(run: str, *, base: bool, by_vllm: bool, most_forgotten: float | None, as_json: bool) -> None:
    from tutelage.builders.evaluation import evaluate_beside_saved
    from tutelage.builders.measured import comparison, uncertainty_between

    folder = run_files.existing_run_folder(run)
    measured, saved = evaluate_beside_saved(folder, base=base, screen=Screen(Terminal(stderr=True)), by_vllm=by_vllm)
    sides = (measured, saved) if base else (saved, measured)
    compared = comparison(*sides)
    if saved is None:  # its numbers are known all the same, without the items
        other = "after" if base else "before"
        compared[other] = (result_or_none(folder) or {}).get(other, compared[other])
    kept = kept_evaluation(folder, compared, measured="before" if base else "after")
    if as_json:
        print_json(as_one_model(measured, compared))
    else:
        title = f"{run}: {'before' if base else 'after'} measured just now"
        Terminal().print(Drawn(result_table(compared), title=title))
        Terminal().write_line(kept)
    if most_forgotten is not None:
        exit_if_forgot(uncertainty_between(*sides), most_forgotten)


def kept_evaluation(folder: Path, compared: Mapping[str, Any], *, measured: str) -> str:
    """Write what was measured just now into the run's folder, beside what it is held against; say where it is.

    A folder that cannot be written takes nothing from what was measured.

    Args:
        folder: of the run.
        compared: see `builders.measured.comparison`.
        measured: which side was measured just now, before or after.
    """
    kept = {"measured": measured, **compared, "versions": run_files.versions()}
    try:
        run_files.write_json(folder / run_files.EVALUATION, kept)
    except SaveError as error:
        return f"note: {run_files.EVALUATION} is not written ({error.found})"
    return f"All of it is in {run_files.EVALUATION}, in the run's folder."


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


def _evaluate_adapters(run: str, adapters: list[str], *, as_json: bool) -> None:
    from tutelage.builders.evaluation import evaluate_adapters
    from tutelage.builders.measured import comparison, uncertainty_between
    from tutelage.builders.named_adapters import named_adapters

    found = evaluate_adapters(run, named_adapters(adapters), screen=Screen(Terminal(stderr=True)))
    rows = {name: asdict(measured.metrics) for name, measured in found.items()}
    if as_json:
        print_json({name: as_one_model(measured, comparison(None, measured)) for name, measured in found.items()})
        return
    table = several_models(rows, {name: uncertainty_between(None, measured) for name, measured in found.items()})
    notes = [note for name, measured in found.items() for note in notes_of(name, measured)]
    Terminal().print(Drawn(replace(table, notes=(*notes, *table.notes)), title=f"{run}: adapters on one base"))
