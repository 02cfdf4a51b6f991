"""All default steps over many rows: rows a second, CPU time a row, peak memory, what was found; and after being killed.

    python benchmarks/curate/whole.py --material FOLDER --rows 1000000
    python benchmarks/curate/whole.py --material FOLDER --rows 100000 --kills 3

With `--kills` the same command is ended by SIGKILL, with all its processes, after shares of the time that the whole run
took, and given again each time; the output has to be the same bytes, and the seconds are told that it took until then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import judged
import rows as row_maker
import run

STEPS = ("normalize", "quality", "exact_duplicates", "near_duplicates", "consistency")
COPY_STEPS = ("exact_duplicates", "near_duplicates")
OUTPUTS = ("data.jsonl", "ledger.jsonl", "dropped.jsonl", "funnel.json", "card.md", "consistency.json")


@dataclass
class Measured:
    """One run: what it printed (None where it was killed), and what it took."""

    said: dict[str, Any] | None
    seconds: float
    cpu_seconds: float
    peak: int


def measured(command: list[str], *, kill_after: float | None = None) -> Measured:
    """Run once, and end it with all its processes after some seconds, if that is asked."""
    before, start = run.cpu_of_children(), time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, env=run.environment(), start_new_session=True)
        while process.poll() is None:
            peak = max(peak, sum(map(run.proportional_bytes, run.processes_of(process.pid))))
            time.sleep(run.LOOK_SECONDS)
            if kill_after is not None and time.perf_counter() - start > kill_after:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds, used = time.perf_counter() - start, run.cpu_of_children() - before
        if process.returncode == -signal.SIGKILL and kill_after is not None:
            return Measured(None, seconds, used, peak)
        if process.returncode:
            raise SystemExit(f"the run ended with status {process.returncode}")
        said.seek(0)
        return Measured(json.loads(said.read().splitlines()[-1]), seconds, used, peak)


def hashes(out: Path) -> dict[str, str]:
    """SHA-256 of what a curation wrote."""
    return {name: hashlib.file_digest((out / name).open("rb"), "sha256").hexdigest() for name in OUTPUTS}


def killed_run(command: list[str], out: Path, whole: Measured, kills: int) -> None:
    """Kill the same command over and over, let it end, and hold its output against the other's."""
    expected = hashes(out)
    again = out.with_name("killed")
    command = [str(again) if part == str(out) else part for part in command]
    spent = 0.0
    for kill in range(1, kills + 1):
        ended = measured(command, kill_after=whole.seconds * kill / (kills + 1))
        spent += ended.seconds
        state = "ended by itself" if ended.said is not None else "killed"
        print(f"  {state} after {ended.seconds:.1f} s", flush=True)
    last = measured(command)
    same = hashes(again) == expected
    spent += last.seconds
    print(f"  then whole after {last.seconds:.1f} s; in all {spent:.1f} s, undisturbed {whole.seconds:.1f} s")
    print(f"  the same bytes: {'yes' if same else 'NO'}")
    if not same:
        raise SystemExit(1)


def main() -> None:
    """Make rows, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for rows and outputs, which is kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (asked.work or Path(scratch)).resolve()
        folder, out = work / f"rows-{asked.rows}-{asked.seed}", Path(scratch) / "out"
        if not (folder / "labels.jsonl").exists():
            row_maker.write(asked.material, asked.rows, asked.seed, folder)
        size = (folder / "rows.jsonl").stat().st_size
        print(f"{asked.rows:,} rows, {size / 2**20:,.0f} MiB, seed {asked.seed}, {asked.workers} workers")
        print(f"load before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores", flush=True)
        command = [
            sys.executable, str(Path(__file__).with_name("ours.py")), str(folder), str(out),
            "--workers", str(asked.workers), "--steps", *STEPS,
        ]  # fmt: skip
        whole = measured(command)
        assert whole.said is not None
        print(
            f"{whole.seconds:,.0f} s, {asked.rows / whole.seconds:,.0f} rows/s; CPU {whole.cpu_seconds:,.0f} s, "
            f"{whole.cpu_seconds / asked.rows * 1e6:,.0f} us a row; peak {whole.peak / 2**20:,.0f} MiB; "
            f"load after: {os.getloadavg()[0]:.1f}"
        )
        print(f"seconds by part, in all processes: {whole.said['stages']}")
        labels = row_maker.read_labels(folder / "labels.jsonl")
        result = judged.copies(labels, whole.said["dropped"], COPY_STEPS)
        print(f"copies: recall {result['recall']:.4f}, precision {result['precision']:.4f}")
        for kind, total, gone in judged.by_kind(labels, whole.said["dropped"]):
            print(f"{kind:20}{total:>10,}{gone:>10,} {gone / total:>7.2%}")
        if asked.kills:
            killed_run(command, out, whole, asked.kills)


if __name__ == "__main__":
    main()
