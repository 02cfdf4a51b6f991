"""Rows a second and peak memory of preparing data, ours and others', the same rows, by turns.

    python benchmarks/prepare/run.py --material FOLDER --trl-python PYTHON_WITH_TRL --litgpt-python PYTHON_WITH_LITGPT
    python benchmarks/prepare/run.py --material FOLDER --rows 1000000 --repeats 1

Every run is a process of its own that starts cold, without a cache; the clock stands in the process and leaves out its
start and imports. Memory is the resident memory of the process and all its children added up, looked at every 50 ms;
pages that they share count in each. CPU time is that of all of them, start and imports included: unlike the clock, it
does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import rows as row_maker

from tutelage.model.locate import model_folder

HERE = Path(__file__).parent
LOOK_SECONDS = 0.05


@dataclass
class Contestant:
    """One way of preparing the rows, and what was measured of it."""

    name: str
    command: list[str]
    rows_a_second: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    last: dict[str, object] = field(default_factory=dict)

    def measure(self) -> None:
        """Run once."""
        before = cpu_of_children()
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"HF_DATASETS_CACHE": folder, "HF_HUB_OFFLINE": "1"}
            with (
                (HERE / "run.py").open() as nothing,
                subprocess.Popen(
                    self.command, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
                ) as process,
            ):
                peak = 0
                while process.poll() is None:
                    peak = max(peak, resident_bytes(process.pid))
                    time.sleep(LOOK_SECONDS)
                assert process.stdout is not None
                lines = process.stdout.read().decode().strip().splitlines()
            if process.returncode or not lines:
                raise SystemExit(f"{self.name} ended with status {process.returncode}: {' '.join(self.command)}")
        self.last = json.loads(lines[-1])
        self.rows_a_second.append(float(str(self.last["rows"])) / float(str(self.last["seconds"])))
        self.peak_bytes.append(peak)
        self.cpu_seconds.append(cpu_of_children() - before)


def cpu_of_children() -> float:
    """Seconds that all processes started from here, and theirs, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its children, 0 for what has ended meanwhile."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = [
            int(one)
            for task in Path(f"/proc/{process}/task").iterdir()
            for one in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
    return own * 1024 + sum(resident_bytes(child) for child in children)


def contestants(asked: argparse.Namespace, data: Path, folder: Path) -> list[Contestant]:
    """Ours first: the others are compared with it."""
    ours = [sys.executable, str(HERE / "ours.py"), str(data), str(folder)]
    found = [Contestant("tutelage, with the proof", ours)]
    if asked.one_process:
        found.append(Contestant("tutelage, one process", [*ours, "--workers", "1"]))
    if asked.trl_python:
        trl = [asked.trl_python, str(HERE / "by_trl.py"), str(data), str(folder), "--form"]
        found += [
            Contestant("TRL, replies trained", [*trl, "prompt_completion"]),
            Contestant("TRL, replies trained, 2 processes", [*trl, "prompt_completion", "--processes", "2"]),
            Contestant("TRL, everything trained, no mask", [*trl, "messages"]),
        ]
    if asked.litgpt_python:
        found.append(Contestant("LitGPT", [asked.litgpt_python, str(HERE / "by_litgpt.py"), str(data), str(folder)]))
    return found


def print_table(measured: list[Contestant], rows: int) -> None:
    """Medians, and how many times as fast ours was in the same turn."""
    heads = ("rows/s", "lowest", "highest", "ours/it", "CPU us/row", "peak MiB", "tokens", "trained")
    print("\n" + " " * 36 + "".join(f"{head:>12}" for head in heads))
    for one in measured:
        speeds = one.rows_a_second
        ratios = [a / b for a, b in zip(measured[0].rows_a_second, speeds, strict=True)]
        cells = (
            f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f}",
            f"{max(speeds):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{statistics.median(one.cpu_seconds) / rows * 1e6:,.0f}",
            f"{max(one.peak_bytes) / 2**20:,.0f}",
            f"{one.last['tokens']:,}",
            f"{one.last['trained_tokens']:,}",
        )
        print(f"{one.name:36}" + "".join(f"{cell:>12}" for cell in cells))


def main() -> None:
    """Measure all by turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--rows", type=int, default=9990)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trl-python", help="a Python that has TRL; without it TRL is left out")
    parser.add_argument("--litgpt-python", help="a Python that has LitGPT; without it LitGPT is left out")
    parser.add_argument("--one-process", action="store_true", help="measure ours in one process, too")
    parser.add_argument("--model", default="smollm2-135m", help="whose tokenizer and template")
    asked = parser.parse_args()
    folder = model_folder(asked.model, weights=False)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "rows.jsonl"
        print(row_maker.write(asked.material, asked.rows, data))
        print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}")
        all_of_them = contestants(asked, data, folder)
        for repeat in range(asked.repeats):
            for one in all_of_them:
                one.measure()
                print(f"  run {repeat + 1}: {one.name}: {one.rows_a_second[-1]:,.0f} rows/s", flush=True)
    print_table(all_of_them, asked.rows)
    print(f"dropped by ours: {all_of_them[0].last['dropped'] or 'none'}")


if __name__ == "__main__":
    main()
