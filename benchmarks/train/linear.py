"""Whether the cost of our training grows in a line with the tokens and does not depend on the size of the data set.

    python -m benchmarks.train.linear --material FOLDER

Two tables: one, two and four times as many steps over as many rows; and the same number of steps on data sets of 1,000
and of 100,000 rows. Preparing the rows is left out of the speed and shown apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.train.contestants import OURS, Contestant, measure
from benchmarks.train.figures import tokens_a_second
from benchmarks.train.machine import this_machine
from benchmarks.train.measured import Measured, Method, Numerics, Task
from benchmarks.train.workload import write_rows

from tutelage.model.locate import model_folder
from tutelage.model.precision import resolve_precision

TIMES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its data set, what it measured, and the seconds of the whole process."""

    rows: int
    steps: int
    measured: Measured
    process_seconds: float

    def line(self) -> str:
        """A row of the table."""
        seconds = sum(self.measured.step_seconds)
        cells = (
            f"{self.rows:,}",
            f"{self.steps}",
            f"{self.measured.tokens:,}",
            f"{seconds:.1f}",
            f"{1000 * seconds / self.measured.tokens:.2f}",
            f"{tokens_a_second([seconds], [self.measured.tokens]):,.0f}",
            f"{self.measured.peak_bytes / 1e9:.2f}",
            f"{self.process_seconds - seconds:.0f}",
        )
        return f"| {' | '.join(cells)} |"


HEAD = """\
| rows | steps | tokens | seconds in steps | ms a token | tokens/s | peak GB | seconds beside them |
|---|---|---|---|---|---|---|---|"""


def point(rows: int, steps: int, asked: argparse.Namespace, folder: Path) -> Point:
    """Train for `steps` steps on a data set of `rows` rows."""
    data = folder / f"rows-{rows}.jsonl"
    if not data.exists():
        write_rows(None, asked.material, rows, data)
    method: Method = asked.method
    task = Task(
        rows=str(data),
        examples="",
        model_folder=str(model_folder("smollm2-135m")),
        prepared_folder=str(folder),
        method=method,
        numerics="fp32",
        micro_examples=1,
        batch_size=asked.batch,
        steps=steps,
        overrides=asked.set,
    )
    numerics: Numerics = "fp32" if resolve_precision("auto") == "fp32" else "mixed"
    started = time.perf_counter()
    measured = measure(Contestant(OURS, OURS, numerics), task, None)
    return Point(rows, steps, measured, time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--method", choices=("full", "lora"), default="lora")
    parser.add_argument("--batch", type=int, default=16, help="examples an optimizer step")
    parser.add_argument("--sizes", default="1000,100000", help="rows of the data sets that are compared")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of ours")
    asked = parser.parse_args()
    print(f"{this_machine().sentence()}; {asked.method}\n\n{HEAD}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for times in TIMES:
            print(point(times * asked.batch, times, asked, Path(name)).line(), flush=True)
        for size in map(int, asked.sizes.split(",")):
            print(point(size, TIMES[1], asked, Path(name)).line(), flush=True)


if __name__ == "__main__":
    main()
