"""Where each second of our training goes, by kind of work, and the share of the matrix limit that it reaches.

    python -m benchmarks.train.profile --material FOLDER --method full

One run of the engine: a step to warm up, two to time, two under torch.profiler. The limit is measured before, in the
same process. Marks around modules, set through PyTorch's global hooks, say which operation belongs to which module;
operations of the backward pass belong to the module of the forward operation that they are the gradient of.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from benchmarks.train import limit
from benchmarks.train.by_tutelage import settings_for
from benchmarks.train.kinds import MODULE, Operation, is_copy, is_wrapper, kind_of, seconds_by_kind, short
from benchmarks.train.limit import Limit
from benchmarks.train.machine import this_machine
from benchmarks.train.measured import Task
from benchmarks.train.workload import write_rows
from rich.console import Console
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules import module as module_hooks
from torch.profiler import ProfilerActivity, profile, record_function

from tutelage.builders.dataset import prepare
from tutelage.builders.resolved_run import resolve
from tutelage.config import Settings
from tutelage.model.locate import model_folder
from tutelage.model.precision import DTYPES, resolve_precision
from tutelage.pack import Sampler, batches
from tutelage.report.console.progress import Screen
from tutelage.runs.metrics_log import HeldoutRecord, StepRecord
from tutelage.train.run import run

WARM_STEPS = 1
PLAIN_STEPS = 2
PROFILED_STEPS = 2
TOP_OPERATIONS = 12


class ProfilingScreen(Screen):
    """A quiet screen that profiles the last steps of the training that reports to it."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.profiler = profile(activities=[ProfilerActivity.CPU])
        self.steps: list[StepRecord] = []

    @contextmanager
    def training(self, steps: int, _done: int) -> Iterator[Callable[[StepRecord | HeldoutRecord], None]]:
        """Profile from the end of the last plain step to the end of the last step."""
        spans: list[record_function] = []

        def enter(module: torch.nn.Module, *_given: Any) -> None:
            span = record_function(MODULE + type(module).__name__)
            span.__enter__()
            spans.append(span)

        def leave(*_given: Any) -> None:
            spans.pop().__exit__(None, None, None)

        hooks: list[Any] = []

        def watch(record: StepRecord | HeldoutRecord) -> None:
            if not isinstance(record, StepRecord):
                return
            self.steps.append(record)
            if record.step == steps - PROFILED_STEPS:
                hooks.append(module_hooks.register_module_forward_pre_hook(enter))
                hooks.append(module_hooks.register_module_forward_hook(leave))
                self.profiler.start()
            elif record.step == steps:
                self.profiler.stop()

        try:
            yield watch
        finally:
            for hook in hooks:
                hook.remove()

    def seconds_and_tokens(self, first: int, last: int) -> tuple[float, int]:
        """Wall time and tokens of the steps after `first` up to `last`."""
        seconds = self.steps[last - 1].elapsed_seconds - self.steps[first - 1].elapsed_seconds
        return seconds, sum(step.tokens for step in self.steps[first:last])


def operations_of(events: list[FunctionEvent]) -> list[Operation]:
    """The events of a profile as operations that know what they are inside of."""
    forward: dict[int, FunctionEvent] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and not any("Backward" in name or "autograd" in name for name in _names_up(event)):
            forward[event.sequence_nr] = event  # the last to begin is the one that the gradient belongs to
    made = []
    for event in events:
        inside = _names_up(event)[1:]
        root = _outermost(event)
        if root.sequence_nr in forward and root is not forward[root.sequence_nr] and "autograd" in root.name:
            inside = [*inside, *_names_up(forward[root.sequence_nr])]
        made.append(Operation(event.name, tuple(inside), event.self_cpu_time_total / 1e6))
    return made


def _names_up(event: FunctionEvent) -> list[str]:
    names: list[str] = []
    at: FunctionEvent | None = event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    return names


def _outermost(event: FunctionEvent) -> FunctionEvent:
    """The engine's call of a gradient function that an operation of the backward pass runs inside of, or the event."""
    at: FunctionEvent | None = event
    while at is not None:
        if at.name.startswith("autograd::engine::evaluate_function"):
            return at
        at = at.cpu_parent
    return event


def computed_share(settings: Settings, base: Path) -> float:
    """The part of the plain steps' tokens that goes through the model: beginnings that rows share do so once."""
    train = prepare(settings, base).train
    asked = settings.train
    order = Sampler(len(train), asked.batch_size, asked.epochs, settings.seed, asked.max_steps)
    resolved = resolve(settings)
    made = batches(train, order, row_tokens=resolved.row_tokens, share_prefixes=resolved.trains_on_shared_prefixes)
    plain = list(islice(made, WARM_STEPS, WARM_STEPS + PLAIN_STEPS))
    return sum(one.computed_tokens for one in plain) / sum(one.tokens for one in plain)


def print_profile(screen: ProfilingScreen, reached: Limit, task: Task, computed: float) -> None:
    """The shares of the profiled steps, and of the matrix limit in the plain ones.

    Args:
        screen: that profiled.
        reached: what the machine can do.
        task: what was run.
        computed: see `computed_share`.
    """
    plain_seconds, plain_tokens = screen.seconds_and_tokens(WARM_STEPS, WARM_STEPS + PLAIN_STEPS)
    wall, tokens = screen.seconds_and_tokens(WARM_STEPS + PLAIN_STEPS, task.steps)
    operations = operations_of(list(screen.profiler.events()))
    kinds = seconds_by_kind(operations)
    accounted = sum(kinds.values())
    print(f"\n{tokens:,} tokens in {wall:.1f} s under the profiler ({tokens / wall:.0f} tokens/s)\n")
    print("| kind of work | seconds | share |\n|---|---|---|")
    for kind, seconds in [*kinds.items(), ("between operations (Python)", wall - accounted)]:
        print(f"| {kind} | {seconds:.2f} | {seconds / wall:.1%} |")
    moved = sum(operation.self_seconds for operation in operations if is_copy(operation))
    print(f"\nCopies, casts and clearing of memory in all of these kinds together: {moved:.2f} s, {moved / wall:.1%}")
    real = [operation for operation in operations if not is_wrapper(operation)]
    print(f"Longest operations: {_longest(real)}")
    print(f"Longest of kind other: {_longest([one for one in real if kind_of(one) == 'other'])}")
    speed = plain_tokens / plain_seconds
    of_model, of_square = reached.share(task.method, speed * computed)
    print(
        f"\nWithout the profiler: {speed:.0f} tokens/s, of which {speed * computed:.0f} go through the model (the rest "
        f"are beginnings that rows share). The limit is "
        f"{reached.tokens_a_second(task.method, reached.model_flops):.0f} by the model's own products "
        f"({reached.model_flops / 1e9:.0f} GFLOP/s), {reached.tokens_a_second(task.method, reached.square_flops):.0f} "
        f"by a square of {limit.SQUARE} ({reached.square_flops / 1e9:.0f} GFLOP/s): "
        f"{of_model:.0%} and {of_square:.0%} of them reached"
    )


def _longest(operations: list[Operation]) -> str:
    seconds: dict[str, float] = defaultdict(float)
    for operation in operations:
        seconds[short(operation.name)] += operation.self_seconds
    top = sorted(seconds.items(), key=lambda entry: -entry[1])[:TOP_OPERATIONS]
    return ", ".join(f"{name} {spent:.2f} s" for name, spent in top)


def main() -> None:
    """Measure the limit, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="Alpaca rows, a JSON array or JSON lines")
    parser.add_argument("--material", type=Path, help="folder of published files to make Alpaca-like rows of")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--batch", type=int, default=16, help="examples an optimizer step")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of ours")
    asked = parser.parse_args()
    precision = resolve_precision(asked.precision)
    base = model_folder(asked.model)
    steps = WARM_STEPS + PLAIN_STEPS + PROFILED_STEPS
    print(f"{this_machine().sentence()}; {asked.method}, {precision}", flush=True)
    reached = limit.measure(base, asked.method, DTYPES[precision])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(write_rows(asked.rows, asked.material, steps * asked.batch, folder / "rows.jsonl"), flush=True)
        task = Task(
            rows=str(folder / "rows.jsonl"),
            examples="",
            model_folder=str(base),
            prepared_folder=name,
            method=asked.method,
            numerics="fp32" if precision == "fp32" else "mixed",
            micro_examples=1,
            batch_size=asked.batch,
            steps=steps,
            overrides=asked.set,
        )
        screen = ProfilingScreen()
        settings = settings_for(task, folder)
        run(settings, screen)
        computed = computed_share(settings, base)
    print_profile(screen, reached, task, computed)


if __name__ == "__main__":
    main()
