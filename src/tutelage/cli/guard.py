"""`train --guard`: remedies against forgetting, chosen by one half of the general set, reported on the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.config import Settings
from tutelage.errors import ConfigError, command
from tutelage.report.console.guard import planned_table, search_notes, searched_table
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json

if TYPE_CHECKING:
    from tutelage.builders.guard import Guarded
    from tutelage.builders.guard_plan import GuardPlan

GuardLimit = Annotated[
    str | None,
    typer.Option(
        "--guard",
        metavar="forgetting=SHARE",
        help="Train the recipe and remedies; take the best at the task that lost at most this: forgetting=0.03.",
    ),
]
GuardRuns = Annotated[int, typer.Option("--guard-runs", min=1, max=64, help="With --guard: candidates at most.")]
GuardFirst = Annotated[
    bool, typer.Option("--guard-first", help="With --guard: end with the first candidate within the limit.")
]
RUNS = 6


def guarded_train(
    settings: Settings, guard: str, out: Terminal, *, runs: int, first: bool, dry_run: bool, as_json: bool
) -> None:
    """Search, show, and exit with 0 where the chosen one is within the limit on the half of the report, else with 1.

    Args:
        settings: of the recipe.
        guard: what was given, such as `forgetting=0.03`.
        out: shown what happens.
        runs: candidates that are trained at most.
        first: end with the first one within the limit.
        dry_run: show the split and the candidates, load nothing.
        as_json: print `guard.json` in place of the table.

    Raises:
        ConfigError: the limit cannot be read, or nothing tells which candidate is better.
        TutelageError: of the kind that fits.
    """
    from tutelage.builders.guard_plan import limit_of, plan_guard

    plan = plan_guard(settings, limit_of(guard), runs=runs, stops_at_first=first, log=out.log)
    _show_split(plan, out)
    if dry_run:
        _show_plan(plan, out)
        return
    guarded = _searched(plan, out)
    _show_end(plan, guarded, out, as_json=as_json)
    if guarded.gate.tripped_by is not None:
        raise typer.Exit(1)


def require_alone(options: Mapping[str, bool], *, runs: int, first: bool, given: bool) -> None:
    """Refuse what does not go with `--guard`, and options of its own without it.

    Args:
        options: others of the command, by name: whether each was given.
        runs: of `--guard-runs`.
        first: of `--guard-first`.
        given: whether `--guard` was.

    Raises:
        ConfigError: that is so.
    """
    if not given:
        for option, is_given in {"--guard-runs": runs != RUNS, "--guard-first": first}.items():
            if is_given:
                raise ConfigError(f"{option} goes with --guard", fix="add --guard forgetting=0.03, or leave it out")
        return
    if conflicting := next((option for option, is_given in options.items() if is_given), None):
        raise ConfigError(
            f"--guard and {conflicting} contradict each other",
            found=f"--guard together with {conflicting}",
            expected="a recipe that is trained from the start, by one process",
            fix=f"leave {conflicting} out; a search that was ended goes on with the same command",
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "--guard trains its candidates in one process",
            found=f"WORLD_SIZE = {os.environ['WORLD_SIZE']}",
            fix="run it without torchrun",
        )


def _searched(plan: GuardPlan, out: Terminal) -> Guarded:
    from tutelage.api.actions import train as api_train
    from tutelage.builders.guard import run_guard

    screen = Screen(out)

    def train(settings: Settings, resume: bool) -> Mapping[str, Any] | None:
        run = api_train(settings, resume=resume, screen=screen)
        return None if run.ended == "interrupted" else run.result

    guarded = run_guard(plan, train, screen)
    if guarded is None:
        out.log(f"The search is not over: the same command goes on from {plan.folder}")
        raise typer.Exit(130)
    return guarded


def _show_split(plan: GuardPlan, out: Terminal) -> None:
    """Before anything is trained, so that nobody waits for what so few items cannot say."""
    sets = ", ".join(plan.sets)
    out.print(f"The general set ({sets}) is split in two, no prompt in both, by topic and seed:", soft_wrap=True)
    for words in plan.shows:
        out.print(f"  {words}", soft_wrap=True)


def _show_plan(plan: GuardPlan, out: Terminal) -> None:
    remarks = [""] * len(plan.candidates) + ["beyond --guard-runs"] * len(plan.beyond)
    rows = [
        (candidate.name, ", ".join(candidate.overrides), candidate.tokens, remark)
        for candidate, remark in zip((*plan.candidates, *plan.beyond), remarks, strict=True)
    ]
    out.print(planned_table(rows))
    topics = ", ".join(
        f"{topic or 'no topic'} {chosen_by} + {reported}" for topic, (chosen_by, reported) in plan.halves.topics.items()
    )
    for line in (
        *(f"Left out: {left_out.name} ({left_out.why})" for left_out in plan.left_out),
        f"Items of each topic, to choose by + for the report: {topics}",
        "Beside its steps each run is measured before and after, and at 0.25, 0.5 and 0.75 of the dial.",
        f"Runs will be in {plan.folder}",
    ):
        out.print(line, soft_wrap=True)


def _show_end(plan: GuardPlan, guarded: Guarded, out: Terminal, *, as_json: bool) -> None:
    from tutelage.builders.guard import GUARD

    record, trial = guarded.record, guarded.choice.trial
    if as_json:
        print_json(record)
    out.print(searched_table(record))
    for note in search_notes(record):
        out.print(note, style="dim", soft_wrap=True)
    limit = f"{100 * plan.limit:g} points"
    if guarded.choice.within:
        moved = f"{'gained' if trial.lost < 0 else 'lost'} {100 * abs(trial.lost):.1f} points"
        out.print(f"Choice half: {trial.name} {moved}, within {limit}.", soft_wrap=True)
    else:
        out.print(
            f"Choice half: no candidate lost at most {limit}; {trial.name} lost the least, "
            f"{100 * trial.lost:.1f} points.",
            style="yellow",
            soft_wrap=True,
        )
    report = record["report"]
    change = report["uncertainty"]["shares"]["general"]["change"]
    tripped = guarded.gate.tripped_by is not None
    out.print(
        f"Report half ({len(plan.halves.report)} items that took no part in the choice): {guarded.gate.sentence}; "
        f"verdict: {change['verdict']}",
        style="yellow" if tripped else "green",
        soft_wrap=True,
    )
    for line in _what_is_not_said(plan, guarded):
        out.print(line, style="yellow", soft_wrap=True)
    out.print(f"  chosen:    {report['run']}", soft_wrap=True)
    if trial.dial == 1:
        out.print(f"  talk to it: {command('chat', report['run'])}", soft_wrap=True)
    else:
        out.print(f"  its model: {report['model']}, at {trial.dial:g} of the dial", soft_wrap=True)
    out.print(f"  all of it: {plan.folder / GUARD}", soft_wrap=True)


def _what_is_not_said(plan: GuardPlan, guarded: Guarded) -> list[str]:
    """What the choice and the report leave open."""
    lines, record, report = [], guarded.record, guarded.record["report"]
    base_score = record["chosen"]["base_score"]
    if base_score is not None and guarded.choice.trial.score <= base_score:
        lines.append("At the task it is no better than the base, so nothing was gained by training it.")
    if report["uncertainty"]["shares"]["general"]["change"]["verdict"] == "not shown":
        lines.append(f"It cannot say that nothing was lost: {plan.shows[1].removeprefix('for the report: ')}.")
    if report["asked_before"]:
        names = ", ".join(report["asked_before"])
        lines.append(
            f"The report half was asked before, about {names}: who chose anew after seeing that has no untouched half; "
            "another seed splits the set anew."
        )
    return lines
