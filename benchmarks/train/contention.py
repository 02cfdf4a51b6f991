"""Training speed beside other work: tutelage and TRL, quiet and beside two busy processes, by turns.

    python -m benchmarks.train.contention --environments FOLDER --material FOLDER --repeats 3
    python -m benchmarks.train.contention --material FOLDER --tools tutelage --wait GOMP_SPINCOUNT=300

Every run is a process of its own; the busy ones only count, each on a core if it gets one. Ours runs as it comes,
with a watch that has threads sleep soon while other programs want the cores, and besides with OpenMP's own way of
waiting, which says what the watch costs where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.train.contestants import OURS, Contestant, measure, python_of
from benchmarks.train.figures import Runs, paired_ratio, tokens_a_second
from benchmarks.train.machine import this_machine
from benchmarks.train.measured import Task
from benchmarks.train.workload import write_examples, write_rows

from tutelage.model.locate import model_folder
from tutelage.model.precision import resolve_precision

OUT = Path("runs/benchmarks/contention.json")
UNWATCHED = {"GOMP_SPINCOUNT": "300000", "OMP_WAIT_POLICY": ""}
"""libgomp's own default, which is left alone once it is chosen; an empty variable is none."""
AS_IT_COMES = {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": ""}
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
NUMERICS = {"bf16": "mixed", "fp32": "fp32"}


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, help="folder that environments.sh filled")
    parser.add_argument("--material", type=Path, required=True, help="folder of published files to make rows of")
    parser.add_argument("--count", type=int, default=8, help="how many rows")
    parser.add_argument("--batch", type=int, default=4, help="examples an optimizer step")
    parser.add_argument("--steps", type=int, default=2, help="at least 2: speed is taken from the second on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside it")
    parser.add_argument("--method", default="full", choices=("full", "lora"))
    parser.add_argument("--tools", default="tutelage,trl")
    parser.add_argument("--wait", action="append", default=[], metavar="NAME=VALUE", help="ours with this, too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=OUT, help="file for all raw figures")
    asked = parser.parse_args()
    if asked.steps < 2 or asked.steps * asked.batch > asked.count:
        parser.error("--steps must be at least 2, and --count at least --steps times --batch")
    return asked


def contestants(asked: argparse.Namespace, numerics: Any) -> list[Contestant]:
    """Ours as it comes first, then ours unwatched and as asked, then TRL as it comes and waiting passively."""
    tools = asked.tools.split(",")
    waits = [dict([pair.split("=", 1)]) for pair in asked.wait]
    chosen = [
        Contestant(OURS, OURS, numerics),
        Contestant(f"{OURS}, unwatched", OURS, numerics, environment=UNWATCHED),
    ]
    chosen += [Contestant(f"{OURS}, {wait}", OURS, numerics, environment=AS_IT_COMES | wait) for wait in waits]
    if "trl" in tools:
        chosen += [
            Contestant("TRL", "trl", numerics, environment=AS_IT_COMES),
            Contestant("TRL, passive", "trl", numerics, environment=AS_IT_COMES | PASSIVE),
        ]
    return chosen


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that do nothing but count, until this ends."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    numerics = NUMERICS[resolve_precision("auto")]
    chosen = contestants(asked, numerics)
    for contestant in chosen:
        python_of(contestant.tool, asked.environments)
    print(this_machine().sentence())
    quiet, beside = [Runs(one) for one in chosen], [Runs(one) for one in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = write_rows(None, asked.material, asked.count, folder / "rows.jsonl")
        task = Task(
            rows=str(folder / "rows.jsonl"),
            examples=str(folder / "examples.jsonl"),
            model_folder=str(model_folder(asked.model)),
            prepared_folder=str(asked.environments or folder),
            method=asked.method,
            numerics=numerics,
            micro_examples=1,
            batch_size=asked.batch,
            steps=asked.steps,
        )
        tokens = write_examples(task, about).step_tokens
        for repeat in range(asked.repeats):
            for number, contestant in enumerate(chosen):
                for runs, processes in ((quiet, 0), (beside, asked.busy)):
                    load = os.getloadavg()[0]
                    with busy_processes(processes):
                        one = measure(contestant, task, asked.environments)
                    runs[number].measured.append(one)
                    print(
                        f"  repeat {repeat + 1}: {contestant.name}, {processes} busy: "
                        f"{tokens_a_second(one.step_seconds, tokens):,.0f} tokens/s (load before: {load:.1f})",
                        flush=True,
                    )
    print(conclude(quiet, beside, tokens, asked.busy))
    raw = {"machine": asdict(this_machine()), "tokens": tokens}
    raw |= {key: [asdict(each) for each in runs] for key, runs in (("quiet", quiet), ("beside", beside))}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    print(f"\nAll raw figures: {asked.out}")


def conclude(quiet: list[Runs], beside: list[Runs], tokens: list[int], busy: int) -> str:
    """A table of medians; ratios are those within each repeat, and their median."""
    lines = [
        f"\n| | quiet, tokens/s | beside {busy} busy | share of quiet | ours beside / it beside |",
        "|---|---|---|---|---|",
    ]
    ours = beside[0].speeds(tokens)
    for calm, loaded in zip(quiet, beside, strict=True):
        speeds, slowed = calm.speeds(tokens), loaded.speeds(tokens)
        cells = (
            calm.contestant.name,
            f"{statistics.median(speeds):,.0f}",
            f"{statistics.median(slowed):,.0f}",
            f"{paired_ratio(slowed, speeds):.0%}",
            f"{paired_ratio(ours, slowed):.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lost = 1 - paired_ratio(quiet[0].speeds(tokens), quiet[1].speeds(tokens))
    return "\n".join([*lines, f"\nWhat the watch costs when quiet: {lost:.1%} of the speed without it"])


if __name__ == "__main__":
    main()
