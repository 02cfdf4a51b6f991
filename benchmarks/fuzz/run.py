"""Damaged data files, run folders, model folders and settings: every one must end in an answer or a TutelageError.

    python -m benchmarks.fuzz.run --data 100000 --settings 5000 --run-folders 1000 --model-folders 1000

Nothing is fetched and nothing is guarded against but what is ours: an exception of another kind, books that do not
balance, a minute without an end, a process that dies. What went wrong lies in OUT/faults with its traceback and is made
again by --only KIND:NUMBER. Ends with status 1 if anything did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz.attempts import Attempts, quiet
from benchmarks.train.machine import this_machine

SECONDS_EACH = 60
CHUNKS = {"data": 500, "settings": 500, "run": 20, "model": 20}
KINDS = {"data": "data_file", "settings": "settings", "run": "run_folder", "model": "model_folder"}
OUT = Path("runs/fuzz")


@dataclass(slots=True)
class Count:
    """What became of the attempts of a kind, and the faults: number and last line of the traceback."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Count) -> None:
        """Take another count in."""
        self.outcomes.update(other.outcomes)
        self.faults += other.faults


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=100_000, help="damaged data files")
    parser.add_argument("--settings", type=int, default=5_000, help="damaged recipes")
    parser.add_argument("--run-folders", dest="run", type=int, default=1_000, help="damaged run folders")
    parser.add_argument("--model-folders", dest="model", type=int, default=1_000, help="damaged model folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", metavar="KIND:NUMBER", help="make one attempt again and show its traceback")
    return parser.parse_args()


def attempt_chunk(kind: str, numbers: range, seed: int, out: Path) -> Count:
    """Make the attempts of `numbers` in this process."""
    quiet()
    count = Count()
    folder = out / "work" / f"{kind}-{multiprocessing.current_process().pid}"
    attempts = Attempts(folder.absolute(), seed)
    signal.signal(signal.SIGALRM, _too_long)
    make = getattr(attempts, KINDS[kind])
    attempts.make_good_ones(kind)  # which takes longer than an attempt may
    for number in numbers:
        signal.alarm(SECONDS_EACH)
        try:
            count.outcomes[make(number)] += 1
        except Exception as error:  # noqa: BLE001 any other exception is what is looked for
            signal.alarm(0)
            count.faults.append((number, f"{type(error).__name__}: {error}".splitlines()[0][:200]))
            faults = out / "faults"
            faults.mkdir(parents=True, exist_ok=True)
            (faults / f"{kind}-{number}.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
        finally:
            signal.alarm(0)
        for left in (*folder.glob(f"model-{number}"), *folder.glob("runs/on-*")):
            shutil.rmtree(left, ignore_errors=True)
    return count


def _too_long(_signal: int, _frame: Any) -> None:
    raise TimeoutError(f"no end after {SECONDS_EACH} s")


def chunks(asked: argparse.Namespace) -> Iterator[tuple[str, range]]:
    """All attempts, in pieces that one process makes in a row."""
    for kind in KINDS:
        for start in range(0, getattr(asked, kind), CHUNKS[kind]):
            yield kind, range(start, min(start + CHUNKS[kind], getattr(asked, kind)))


def fuzz(asked: argparse.Namespace) -> dict[str, Count]:
    """Make all attempts; a process that dies is a fault of its piece."""
    counts = {kind: Count() for kind in KINDS}
    began, done, total = time.monotonic(), 0, sum(getattr(asked, kind) for kind in KINDS)
    pieces = list(chunks(asked))
    for first in range(0, len(pieces), 4 * asked.processes):
        batch = pieces[first : first + 4 * asked.processes]
        with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
            running = [(kind, numbers, pool.submit(attempt_chunk, kind, numbers, asked.seed, asked.out))
                       for kind, numbers in batch]  # fmt: skip
            for kind, numbers, future in running:
                try:
                    counts[kind].add(future.result())
                except BrokenProcessPool:
                    counts[kind].faults.append((numbers[0], f"a process died in {numbers}"))
                done += len(numbers)
        elapsed = time.monotonic() - began
        faults = sum(len(count.faults) for count in counts.values())
        left = elapsed / done * (total - done)
        print(f"  {done:,} of {total:,}, {faults} faults, {elapsed:,.0f} s, {left:,.0f} s left", flush=True)
    return counts


def table(counts: dict[str, Count]) -> str:
    """Markdown."""
    lines = ["| input | attempts | faults | what became of the rest |", "|---|---|---|---|"]
    for kind, count in counts.items():
        rest = "; ".join(f"{words} {number:,}" for words, number in count.outcomes.most_common())
        attempts = count.outcomes.total() + len(count.faults)
        lines.append(f"| {kind} | {attempts:,} | {len(count.faults)} | {rest} |")
    return "\n".join(lines)


def main() -> None:
    """Attempt, print, write."""
    asked = arguments()
    shutil.rmtree(asked.out / "work", ignore_errors=True)
    if asked.only:
        kind, number = asked.only.split(":")
        quiet()
        print(getattr(Attempts((asked.out / "work" / "only").absolute(), asked.seed), KINDS[kind])(int(number)))
        return
    shutil.rmtree(asked.out / "faults", ignore_errors=True)
    print(this_machine().sentence())
    counts = fuzz(asked)
    shutil.rmtree(asked.out / "work", ignore_errors=True)
    print(table(counts))
    kinds = Counter(words for count in counts.values() for _, words in count.faults)
    for words, number in kinds.most_common(40):
        print(f"  {number}x {words}")
    record = {kind: {"outcomes": dict(count.outcomes), "faults": count.faults} for kind, count in counts.items()}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "counts.json").write_text(json.dumps({"seed": asked.seed, **record}, indent=1), encoding="utf-8")
    if kinds:
        raise SystemExit(
            f"{kinds.total()} faults; inputs are made again by --only KIND:NUMBER, see {asked.out / 'faults'}"
        )


if __name__ == "__main__":
    main()
