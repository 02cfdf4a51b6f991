"""Starts a command again in several processes of this machine, as `torchrun --standalone` does."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import typer

from tutelage.errors import ConfigError, EngineError, command
from tutelage.runs import folder as run_files

LONGEST_STOP_SECONDS = 600
"""What a process may take, after Ctrl-C, for its step and a checkpoint before it is killed."""
KILLED = 9


def in_processes(count: int, arguments: Sequence[str], *, folder: Path | None) -> None:
    """Run `tutelage ARGUMENTS` in `count` processes, and end with their status.

    Args:
        count: how many; each gets an equal share of the processor cores, unless OMP_NUM_THREADS says otherwise.
        arguments: of the command line, after the program's name.
        folder: of the run that they train, which a resume may go on with; None for a replay.

    Raises:
        EngineError: the system ended one of them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What one of ours has to say it says itself; torch would add where in torch it noticed.
    logging.disable(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=LONGEST_STOP_SECONDS,
    )
    try:
        elastic_launch(launch, sys.executable)("-m", "tutelage", *arguments)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:  # it could say nothing itself
            raise EngineError(
                f"Process {rank} of {count} was ended by the system",
                found=f"signal {-failure.exitcode}"
                + (", as where memory runs out" if failure.exitcode == -KILLED else ""),
                expected="as many processes as were started",
                fix=_once_there_is_room(count, folder),
            ) from None
        raise typer.Exit(failure.exitcode) from None
    except SignalException:
        raise typer.Exit(130) from None


def _once_there_is_room(count: int, folder: Path | None) -> str:
    """What to do where a process was ended: with a checkpoint the run goes on, with one process less."""
    from tutelage.train.checkpoint import Checkpoints

    if folder is None or Checkpoints(folder / run_files.CHECKPOINTS, keep=1).newest() is None:
        return "end what else takes memory on this machine, then give the same command again"
    fewer = ["--processes", count - 1] if count > 2 else []
    return f"go on with {count - 1} of them: {command('train', '--resume', folder, *fewer)}"


def started_already(count: int) -> bool:
    """Whether this is one of the processes that `--processes` asks for.

    Raises:
        ConfigError: another number of them was started.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size not in (1, count):
        raise ConfigError(
            "Another number of processes was started than --processes asks for",
            found=f"WORLD_SIZE={size} and --processes {count}",
            fix="leave --processes out under torchrun",
        )
    return size == count
