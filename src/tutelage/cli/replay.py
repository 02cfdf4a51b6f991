"""`train --replay`: runs a run's settings again, and says where the two differ."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tutelage.cli.launch import in_processes, started_already
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json

if TYPE_CHECKING:
    from tutelage.train.replay import Replayed


def replay_run(
    name: str, into: str | None, out: Terminal, *, conflicting: str | None, processes: int | None, as_json: bool
) -> None:
    """Replay the run `name` and print how it compares; ends with status 1 where the two differ.

    Args:
        name: the folder of a run, or its name.
        into: the folder of the replay; None takes RUN.replay.
        out: where the comparison is printed.
        conflicting: another option, or the recipe, that was given too; it is refused.
        processes: start so many processes; None replays in this one.
        as_json: print one JSON object.

    Raises:
        ConfigError: another option or a recipe was given too.
        TutelageError: the run cannot be replayed.
    """
    from tutelage.distributed.process_group import first_here
    from tutelage.train.replay import replay

    if conflicting is not None:
        raise ConfigError(
            "A replayed run keeps its settings",
            found=f"--replay {name} together with {conflicting}",
            fix="give --replay alone",
        )
    if processes is not None and not started_already(processes):
        in_processes(processes, sys.argv[1:], folder=None)
        return
    replayed = replay(name, Screen(out), into=into)
    if not first_here():
        return
    if as_json:
        print_json(asdict(replayed) | {"recorded": str(replayed.recorded), "folder": str(replayed.folder)})
    elif replayed.difference is None:
        out.write_line(_same(replayed))
    else:
        out.write_line(f"different: {replayed.difference}")
    if replayed.difference is not None:
        for cause in replayed.causes:
            out.write_line(f"  probable cause: {cause}")
        if not replayed.causes:
            unchanged = "versions, code, device, processor and threads are those of the record"
            out.write_line(f"  no cause is recorded: {unchanged}")
        raise typer.Exit(1)


def _same(replayed: Replayed) -> str:
    if replayed.tolerance > 0.0:
        why = "; ".join(cause for cause in replayed.causes if "processes" in cause)
        steps = f"the same to {replayed.tolerance:g}: {replayed.steps} steps"
        return f"{steps}; not to the last bit, and without weights ({why})"
    compared_weights = replayed.weights or "no weights, as the two runs have no checkpoint in common"
    return f"identical: {replayed.steps} steps and {compared_weights}, to the last bit"
