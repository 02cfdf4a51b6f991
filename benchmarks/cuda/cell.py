"""One run of the engine in a process of its own: speed and memory of its steps, and what was predicted; a JSON line.

python -m benchmarks.cuda.cell TASK.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarks.train.by_tutelage import settings_for
from benchmarks.train.measured import Task, task_from_arguments
from rich.console import Console

from tutelage.builders.dataset import prepare, prepared_cache
from tutelage.builders.memory_plan import decide_recompute, fullest_row, workload_of
from tutelage.builders.resolved_run import resolve
from tutelage.config import Settings
from tutelage.plan.devices import this_machine
from tutelage.plan.fit import Traces
from tutelage.plan.model_shape import read_model_shape
from tutelage.report.console.progress import Screen
from tutelage.runs.metrics_log import HeldoutRecord, RowsRecord, StepRecord
from tutelage.train.run import run


class EnoughError(Exception):
    """The steps that are timed are done; what a run does after its last step is not asked for."""


class Watching(Screen):
    """A quiet screen that keeps the records, and ends the run before it saves anything."""

    def __init__(self, steps: int) -> None:
        super().__init__(Console(quiet=True))
        self.steps = steps
        self.records: list[StepRecord] = []

    @contextmanager
    def training(self, _steps: int, _done: int) -> Iterator[Callable[[StepRecord | HeldoutRecord | RowsRecord], None]]:
        """Collect the records of steps."""

        def watch(record: StepRecord | HeldoutRecord | RowsRecord) -> None:
            if isinstance(record, StepRecord):
                self.records.append(record)
                if record.step == self.steps:
                    raise EnoughError

        yield watch


def predicted(settings: Settings, base: Path) -> dict[str, int]:
    """The planner's figures for the run."""
    prepared = prepare(settings, base, cache=prepared_cache())
    resolved = decide_recompute(resolve(settings), prepared, log=lambda _text: None)
    model_shape = read_model_shape(str(base))
    work = workload_of(resolved, fullest_row(resolved, prepared, model_shape), prepared)
    needed = Traces(model_shape).memory(work, this_machine().overhead)
    return {figure.name: figure.size_bytes for figure in needed.figures} | {"checkpointing": int(work.checkpointing)}


def main(task: Task) -> None:
    """Train, stop, print."""
    with tempfile.TemporaryDirectory() as name:
        one_more = replace(task, steps=task.steps + 1)
        settings = settings_for(one_more, Path(name))
        base = Path(task.model_folder)
        figures = predicted(settings, base)
        torch.cuda.reset_peak_memory_stats()
        screen = Watching(task.steps)
        with suppress(EnoughError):
            run(settings, screen)
    free_bytes, all_bytes = torch.cuda.mem_get_info()
    ends = [0.0, *(record.elapsed_seconds for record in screen.records)]
    found: dict[str, Any] = {
        "step_seconds": [later - earlier for earlier, later in pairwise(ends)],
        "step_tokens": [record.tokens for record in screen.records],
        "losses": [record.loss for record in screen.records],
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "outside_bytes": all_bytes - free_bytes - torch.cuda.memory_reserved(),
        "predicted": figures,
    }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(task_from_arguments())
