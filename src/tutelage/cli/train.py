"""`train`: starts, resumes, replays or explains a run. Torch is imported only where a model is needed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, cast

import typer
from rich.table import Table
from rich.text import Text

from tutelage import config
from tutelage.builders.dataset import Prepared
from tutelage.cli.evaluate import exit_if_forgot
from tutelage.cli.guard import RUNS, GuardFirst, GuardLimit, GuardRuns, guarded_train, require_alone
from tutelage.cli.launch import in_processes, started_already
from tutelage.cli.outlet import Outlet
from tutelage.cli.replay import replay_run
from tutelage.cli.run_options import AsJson, MostForgotten
from tutelage.cli.tasks_recipe import require_rows_made
from tutelage.cli.train_options import (
    Checkpoint,
    DryRun,
    Explain,
    Into,
    Overrides,
    Processes,
    Recipe,
    Replay,
    Resume,
    Size,
    SkipStep,
    Strict,
    with_size,
)
from tutelage.curate.licenses import is_non_commercial
from tutelage.errors import ConfigError, DataError, shell_word
from tutelage.report.console.progress import Screen
from tutelage.report.console.result import final_facts, final_screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files
from tutelage.runs.uncertainty import uncertainty_in

GOES_WITH = {"--from": "--resume", "--skip-step": "--resume", "--into": "--replay"}
NOT_WITH_REPLAY = ("--resume", "--strict", "--dry-run")
NOT_WITH_GUARD = ("--resume", "--replay", "--processes", "--fail-if-forgets")


def train(
    recipe: Recipe = None,
    overrides: Overrides = None,
    *,
    size: Size = None,
    resume: Resume = None,
    checkpoint: Checkpoint = None,
    skip_step: SkipStep = False,
    replay: Replay = None,
    into: Into = None,
    dry_run: DryRun = False,
    explain: Explain = None,
    strict: Strict = False,
    processes: Processes = None,
    most_forgotten: MostForgotten = None,
    guard: GuardLimit = None,
    guard_runs: GuardRuns = RUNS,
    guard_first: GuardFirst = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model as a recipe says; measure it before and after; leave a run folder with a report.

    Try: tutelage train recipes/quickstart.toml train.epochs=1
    Ctrl-C finishes the step, saves, and says how to go on.
    """
    if explain is not None:
        _explain(None if explain == "all" else explain)
        return
    given = {
        "--resume": resume is not None, "--replay": replay is not None, "--processes": processes is not None,
        "--fail-if-forgets": most_forgotten is not None, "--from": checkpoint is not None, "--skip-step": skip_step,
        "--into": into is not None, "--strict": strict, "--dry-run": dry_run,
    }  # fmt: skip
    _refuse_combinations(given)
    others = {option: given[option] for option in NOT_WITH_GUARD}
    require_alone(others, runs=guard_runs, first=guard_first, given=guard is not None)
    out = Terminal(file=cast(TextIO, Outlet(sys.stderr if as_json else sys.stdout, lasting=not dry_run)))
    if replay is not None:
        conflicting = recipe or next((option for option in NOT_WITH_REPLAY if given[option]), None)
        replay_run(replay, into, out, conflicting=conflicting, processes=processes, as_json=as_json)
        return
    settings = _settings(recipe, with_size(overrides, size), resume, strict=strict, gated=most_forgotten is not None)
    _say_size_and_licenses(settings, out)
    if settings.size == "paper" and processes is None and not dry_run and resume is None:
        _require_paper_fits(settings, out)
    if guard is not None:
        guarded_train(settings, guard, out, runs=guard_runs, first=guard_first, dry_run=dry_run, as_json=as_json)
        return
    if checkpoint is not None:
        _require_checkpoint(settings.run_folder, checkpoint)
    if dry_run:
        _dry_run(settings, out)
        return
    if processes is not None and not started_already(processes):
        in_processes(processes, sys.argv[1:], folder=settings.run_folder)
        return
    result = _run(settings, out, resume=given["--resume"], checkpoint=checkpoint, skip_step=skip_step, as_json=as_json)
    if most_forgotten is not None and result:
        exit_if_forgot(uncertainty_in(result), most_forgotten)


def _say_size_and_licenses(settings: config.Settings, out: Terminal) -> None:
    if settings.size is not None:
        out.write_line(f"Size: {settings.size}.")
    for source, license_name in settings.data.licenses.items():
        forbids = " (no commercial use)" if is_non_commercial(license_name) else ""
        out.write_line(f"License of {source}: {license_name}{forbids}")


def _require_paper_fits(settings: config.Settings, out: Terminal) -> None:
    from tutelage.builders.paper_plan import require_paper_fits

    require_paper_fits(settings, log=out.log)


def _require_checkpoint(folder: Path, name: str) -> None:
    from tutelage.train.checkpoint import Checkpoints

    Checkpoints(folder / run_files.CHECKPOINTS, keep=1).newest_to_oldest(chosen=name)


def _run(
    settings: config.Settings, out: Terminal, *, resume: bool, checkpoint: str | None, skip_step: bool, as_json: bool
) -> Mapping[str, Any]:
    """The result of the run; on other processes than the first nothing, as nothing is shown there."""
    from tutelage.api.actions import train as api_train
    from tutelage.distributed.process_group import first_here

    run = api_train(settings, resume=resume, checkpoint=checkpoint, skip_step=skip_step, screen=Screen(out))
    if run.ended == "interrupted":
        raise typer.Exit(130)
    if not first_here():  # another process shows it
        return {}
    if as_json:
        print_json(run.result)
    else:
        out.print(final_screen(run.result))
        for line in final_facts(run.result, run.folder, program=_program()):
            out.print(line, soft_wrap=True)
    return run.result


def _program() -> str:
    """What the reader types to run us again: outside of an activated environment `tutelage` is not on the path."""
    begun_as = Path(sys.argv[0])
    if shutil.which("tutelage"):
        return "tutelage"
    if begun_as.name == "tutelage" and begun_as.is_file():
        return shell_word(str(begun_as))
    return f"{shell_word(sys.executable)} -m tutelage"


def _settings(
    recipe: str | None, overrides: list[str], resume: str | None, *, strict: bool, gated: bool
) -> config.Settings:
    settings = _loaded_settings(recipe, overrides, resume, strict=strict)
    if gated and not (settings.evaluate.general and settings.evaluate.before):
        raise ConfigError(
            "Nothing would tell how much was forgotten",
            where="--fail-if-forgets",
            found=f"evaluate.general = {settings.evaluate.general}, evaluate.before = {settings.evaluate.before}",
            expected="a general set that is measured before and after training",
            fix="set evaluate.general, and leave evaluate.before = true",
        )
    return settings


def _loaded_settings(recipe: str | None, overrides: list[str], resume: str | None, *, strict: bool) -> config.Settings:
    if resume is not None:
        arguments = [recipe, *overrides, "--strict" if strict else None]
        return _settings_of_resumed(
            run_files.existing_run_folder(resume), [argument for argument in arguments if argument]
        )
    if recipe is None:
        raise ConfigError(
            "No recipe given", expected="tutelage train RECIPE.toml", fix="try: tutelage train recipes/quickstart.toml"
        )
    settings = config.load(recipe, [*overrides, *(["data.strict=true"] if strict else [])])
    require_rows_made(settings, recipe)
    return settings


def _settings_of_resumed(folder: Path, arguments: list[str]) -> config.Settings:
    """The settings of a run that goes on; of those only its length may be given anew."""
    from tutelage.train.extension import LENGTH  # which needs torch

    if strays := [argument for argument in arguments if argument.partition("=")[0] not in LENGTH]:
        raise ConfigError(
            "A resumed run keeps its settings",
            found=f"--resume {folder} together with {', '.join(strays)}",
            expected=f"nothing else, or its length: {' or '.join(LENGTH)}",
            fix=f"leave out {', '.join(strays)}",
        )
    run_files.read_settings(folder)  # says what is wrong with them better than a recipe's error
    settings = config.load(folder / run_files.SETTINGS, arguments)
    return settings.model_copy(update={"folder": str(folder.parent), "name": folder.name})


def _refuse_combinations(given: Mapping[str, bool]) -> None:
    """Refuse an option without the one that it goes with."""
    for option, goes_with in GOES_WITH.items():
        if given[option] and not given[goes_with]:
            raise ConfigError(
                f"{option} goes with {goes_with}", fix=f"tutelage train {goes_with} RUN {option}, or leave it out"
            )


def _dry_run(settings: config.Settings, out: Terminal) -> None:
    from tutelage.builders.base_model import start_folder, with_adapters_own
    from tutelage.builders.dataset import prepare, prepared_cache
    from tutelage.builders.measured_steps import measured_line
    from tutelage.builders.row_limit import held_to_positions
    from tutelage.builders.sampler import epoch_tokens, questions_of_length, replay_line, sampler_for

    settings = with_adapters_own(settings)
    if find_spec("torch") is not None:  # which one needs to train, and to know what it can share out
        from tutelage.builders.resolved_run import resolve

        resolve(settings)
    folder = start_folder(settings.model, weights=False, log=out.log)
    questions = config.questions(settings)
    fitting, positions = held_to_positions(settings, folder, log=out.log)
    prepared = prepare(fitting, folder, cache=prepared_cache(), log=out.log)
    if settings.data.self_replay:
        prompts = ", ".join(settings.data.self_replay)
        out.log(f"  note: the base's own replies to {prompts} are made as the run starts, and are not counted here")
    if positions is not None:
        positions.require_room(settings, prepared)
        questions += filter(None, [positions.question(prepared)])
    train_settings = settings.train
    sampler = sampler_for(settings, examples=len(prepared.train), sources=prepared.sources)
    tokens = prepared.train_totals.tokens
    step_tokens = epoch_tokens(prepared.train, prepared.sources) / sampler.epoch_visits * train_settings.batch_size
    ledger = prepared.ledger
    grid = Table.grid(padding=(0, 2))
    for name, value in {
        "run folder": str(settings.run_folder),
        "rows": f"{ledger.rows_in} in = {ledger.rows_kept} kept + {ledger.rows_dropped} dropped",
        "dropped": ", ".join(f"{count} {reason}" for reason, count in ledger.dropped.items()) or "none",
        "training": f"{prepared.train_totals.examples} sequences, {tokens:,} tokens",
        "replay": replay_line(prepared.sources) or "none",
        "held out": f"{len(prepared.validation)} sequences",
        "questions": f"{len(prepared.task)} task, {len(prepared.general)} general",
        "measured": measured_line(settings, sampler.steps),
        "steps": f"{sampler.steps} of {train_settings.batch_size} sequences, about {step_tokens:,.0f} tokens",
        "learning rate": f"{settings.peak_learning_rate:g}, {train_settings.lr_scheduler}",
        "method": f"{settings.model.method}, {settings.model.precision}",
        "memory": _memory_line(settings, prepared),
    }.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    out.print(grid)
    for question in [*questions, *questions_of_length(settings, sampler)]:
        out.write_line(f"Is this meant? {question}", style="yellow")


def _memory_line(settings: config.Settings, prepared: Prepared) -> str:
    if find_spec("torch") is None:
        return "not planned: it needs torch; pip install 'tutelage[train]'"
    from tutelage.builders.planning import memory_line

    try:
        return memory_line(settings, prepared, log=lambda _text: None)
    except (ConfigError, DataError) as error:  # a model that cannot be planned may still have data to prove
        return f"not planned: {error.what} ({error.found})"


def _explain(name: str | None) -> None:
    out = Terminal()
    for setting in config.explain(name):
        out.print(Text.assemble((setting.path, "bold"), f" ({setting.type}; default {setting.default})"))
        out.print(Text(f"  {setting.description}"))
        if setting.usual:
            out.print(Text(f"  usual: {setting.usual}", style="dim"))
        out.print(Text(f"  source: {setting.source}", style="dim"))
