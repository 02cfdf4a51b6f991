"""Rows a second, peak memory, recall and precision of finding copies and contamination: ours and others', same rows.

    python benchmarks/curate/run.py --material FOLDER --rows 20000 --with datatrove semhash
    python benchmarks/curate/run.py --material FOLDER --rows 1000000 --work FOLDER --repeats 1

Every run is a process of its own that starts cold. Each other tool has an environment of its own, which is made in the
work folder and kept there. Seconds are those that a script prints: they leave out the start of Python, and of others
the writing of rows in their own form. Memory is the proportional set size of the process and its children, added up,
looked at every 0.2 s: pages that they share count once. CPU time is that of all of them, start and imports included,
as the system counted it at the last look: unlike the clock, it depends little on what else the machine does.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import judged
import rows as row_maker

HERE = Path(__file__).resolve().parent
LOOK_SECONDS = 0.2
PACKAGES = {
    "datatrove": ["datatrove[io,processing]==0.10.1", "spacy"],
    "semhash": ["semhash==0.5.0", "wordllama==0.4.0.post1"],
}
OUR_STEPS = ("exact_duplicates", "near_duplicates")


@dataclass
class Contestant:
    """One way of finding copies, and what was measured of it."""

    name: str
    command: list[str]
    steps: tuple[str, ...]
    speeds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def measure(self, folder: Path, work: Path) -> None:
        """Run once."""
        before = cpu_of_children()
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            command = [*self.command[:2], str(folder), f"{scratch}/out", *self.command[2:]]
            said, errors = Path(scratch) / "stdout", Path(scratch) / "stderr"
            with said.open("w") as stdout, errors.open("w") as stderr:
                process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment())
                peak, ticks = 0, {}
                while process.poll() is None:
                    family = processes_of(process.pid)
                    peak = max(peak, sum(map(proportional_bytes, family)))
                    ticks |= {member: spent for member in family if (spent := ticks_of(member))}
                    time.sleep(LOOK_SECONDS)
            lines = said.read_text(encoding="utf-8").strip().splitlines()
            if process.returncode or not lines:
                raise SystemExit(f"{self.name} ended with status {process.returncode}:\n{errors.read_text()[-2000:]}")
        self.last = json.loads(lines[-1])
        self.speeds.append(self.last["rows"] / self.last["seconds"])
        self.peaks.append(peak)
        # What a server of processes has started is never waited for by its parent, so it is in no sum but this one.
        seen = sum(ticks.values()) / os.sysconf("SC_CLK_TCK")
        self.cpu_seconds.append(max(seen, cpu_of_children() - before))


def cpu_of_children() -> float:
    """Seconds that all processes started from here, and theirs, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment() -> dict[str, str]:
    """One thread a process where a library would take more: two processes have the two cores."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def processes_of(process: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [process]
    return [process, *(member for child in children for member in processes_of(child))]


def proportional_bytes(process: int) -> int:
    """Proportional set size of a process, 0 where it has ended meanwhile."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def ticks_of(process: int) -> int:
    """Clock ticks that a process has computed so far, its children aside; 0 where it has ended meanwhile."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def python_with(tool: str, work: Path) -> str:
    """A Python that has a tool, in an environment of its own."""
    folder = work / "environments" / tool
    python = folder / "bin/python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[tool]], check=True)
        (folder / "ready").touch()
    return str(python)


def contestants(asked: argparse.Namespace, work: Path, folder: Path) -> list[Contestant]:
    """Ours first: the others are compared with it."""
    evaluations = [str(asked.material / name) for name in row_maker.EVALUATIONS] + [
        str(folder / "short_questions.jsonl")
    ]
    ours = [sys.executable, str(HERE / "ours.py"), "--workers", str(asked.workers)]
    chosen = [
        Contestant("tutelage, copies alone", [*ours, "--steps", *OUR_STEPS], OUR_STEPS),
        Contestant("tutelage, near-copies alone", [*ours, "--steps", "near_duplicates"], OUR_STEPS),
        Contestant("tutelage, and contamination", [*ours, "--evaluations", *evaluations], OUR_STEPS),
    ]
    for tool in asked.others:
        command = [python_with(tool, work), str(HERE / f"by_{tool}.py")]
        workers = ["--workers", str(asked.workers)] if tool == "datatrove" else []
        chosen.append(Contestant(tool, [*command, *workers], ("minhash", "semhash")))
    return chosen


def print_tables(measured: list[Contestant], labels: list[dict[str, Any]]) -> None:
    """Speeds, memory, and what was dropped of each kind."""
    heads = ("rows/s", "ours/it", "CPU us/row", "peak MiB", "recall", "precision")
    print("\n" + " " * 30 + "".join(f"{head:>12}" for head in heads))
    for contestant in measured:
        result = judged.copies(labels, contestant.last["dropped"], contestant.steps)
        ratios = [ours / its for ours, its in zip(measured[0].speeds, contestant.speeds, strict=True)]
        cells = (
            f"{statistics.median(contestant.speeds):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{statistics.median(contestant.cpu_seconds) / len(labels) * 1e6:,.0f}",
            f"{max(contestant.peaks) / 2**20:,.0f}",
            f"{result['recall']:.4f}",
            f"{result['precision']:.4f}",
        )
        print(f"{contestant.name:30}" + "".join(f"{cell:>12}" for cell in cells))
    ours = measured[2]
    met = judged.contamination(labels, ours.last["dropped"], "decontaminate")
    print(f"\ncontamination: recall {met['recall']:.4f}, precision {met['precision']:.4f}")
    for contestant in measured[:3]:
        print(f"{contestant.name}: seconds by stage {contestant.last['stages']}")
    print("\nrows dropped of each kind")
    print(f"{'':20}{'rows':>10}" + "".join(f"{contestant.name[:26]:>28}" for contestant in measured))
    of_each = [judged.by_kind(labels, contestant.last["dropped"]) for contestant in measured]
    for lines in zip(*of_each, strict=True):
        kind, total, _ = lines[0]
        print(f"{kind:20}{total:>10,}" + "".join(f"{gone:>20,} {gone / total:>7.2%}" for _, _, gone in lines))


def main() -> None:
    """Make rows, measure all by turns, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--with", dest="others", nargs="*", default=[], choices=PACKAGES)
    parser.add_argument("--work", type=Path, help="folder for rows and environments, which is kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (asked.work or Path(scratch)).resolve()
        folder = work / f"rows-{asked.rows}-{asked.seed}"
        row_maker.write(asked.material, asked.rows, asked.seed, folder)
        labels = row_maker.read_labels(folder / "labels.jsonl")
        size = (folder / "rows.jsonl").stat().st_size
        print(f"{asked.rows:,} rows, {size / 2**20:,.0f} MiB, seed {asked.seed}")
        print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}")
        measured = contestants(asked, work, folder)
        for repeat in range(asked.repeats):
            for contestant in measured:
                contestant.measure(folder, work)
                print(f"  run {repeat + 1}: {contestant.name}: {contestant.speeds[-1]:,.0f} rows/s", flush=True)
        print_tables(measured, labels)


if __name__ == "__main__":
    main()
