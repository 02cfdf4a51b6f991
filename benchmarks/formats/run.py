"""Our reader of rows beside convmerge's: what both make of each shape, and rows a second.

    python benchmarks/formats/run.py
    python benchmarks/formats/run.py --material FOLDER_OF_PUBLISHED_FILES --convmerge EXISTING_PROGRAM
    python benchmarks/formats/run.py --rates-only --before SRC_FOLDER_OF_ANOTHER_CHECKOUT

The other program gets an environment of its own in a temporary folder, made here with pip. Rates are of whole processes
that read a file of rows and write them as messages, one after the other by turns; those by CPU time, its start and
imports included, depend little on what else the machine does. Ours are written with the encoder that comes with it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from compare_shapes import OPTIONS, ours, theirs, verdict

from tutelage.formats import row_shapes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSION = "1.6.5"
ROWS_OF_SHAPES = ROOT / "tests/formats/row_shapes/rows"
OURS = """
import sys
from msgspec.json import Encoder
from tutelage.formats import read
from tutelage.ledger import Ledger
encode = Encoder().encode
with open(sys.argv[2], "wb") as out:
    for row in read([sys.argv[1]], ledger=Ledger()):
        turns = [{"role": message.role, "content": message.content} for message in row.messages]
        out.write(encode({"messages": turns}) + b"\\n")
"""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--convmerge", help="the program, where it is installed")
    parser.add_argument("--material", type=Path, help="a folder of published JSON lines and JSON files")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates-only", action="store_true")
    parser.add_argument("--before", type=Path, help="src of another checkout, whose reader takes its turns, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = options.convmerge or installed(Path(folder) / "environment")
        if not options.rates_only:
            shapes(command)
        if options.material:
            material(command, options.material, Path(folder))
        rates(command, Path(folder), options)


def installed(folder: Path) -> str:
    """Make an environment with the other program alone in it."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", f"convmerge=={VERSION}"], check=True)
    return str(folder / "bin/convmerge")


def shapes(command: str) -> None:
    """The rows of each shape, whose expected reading our tests write out in full."""
    judged = tomllib.loads((HERE / "judged.toml").read_text(encoding="utf-8"))
    words = {name: (kind, why) for kind, entries in judged.items() for name, why in entries.items()}
    counts: Counter[str] = Counter()
    print("| shape | convmerge |\n| --- | --- |")
    for name in row_shapes():
        path = ROWS_OF_SHAPES / f"{name}.jsonl"
        expected, said = ours(path)
        outcome = verdict(expected, theirs(path, command)[0])
        counts["refused by us" if said.startswith("refused") else "read by us"] += 1
        if outcome == "same":
            counts["right: " + ("read alike" if expected else "nothing to train, nothing written")] += 1
            continue
        kind, why = ("refused", "nothing is written, with a warning") if outcome == "nothing" else words.get(
            name, ("not judged", outcome)
        )  # fmt: skip
        counts[kind] += 1
        print(f"| `{name}` | {kind}: {why} |")
    print()
    for kind, count in sorted(counts.items()):
        print(f"{kind}: {count} of {len(row_shapes())}")


def material(command: str, source: Path, folder: Path) -> None:
    """Published files: what both make of them, without a judgment, as nobody has written out what is right."""
    print("\n| file | rows of ours | rows of convmerge | outcome |\n| --- | ---: | ---: | --- |")
    for path in sorted((*source.glob("*.jsonl"), *source.glob("*.json"))):
        lines = path
        if path.suffix == ".json":
            lines = folder / f"{path.stem}.jsonl"
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            items = value if isinstance(value, list) else [value]
            lines.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        expected, said = ours(path)
        reading, _ = theirs(lines, command)
        note = said[:60] if said.startswith("refused") else ""
        print(f"| {path.name} | {len(expected)} | {len(reading)} | {verdict(expected, reading)} {note} |")


def write_rows(path: Path, rows: int) -> None:
    """Rows of the shape that the file is named for: a line each, or the items of one array."""
    text = "The tide in the harbor of Kiel is low in the morning, and the wind comes from the west. " * 4
    is_array = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as out:
        for number in range(rows):
            row = (
                {"instruction": f"Say {number}.", "input": text[:80], "output": text}
                if path.stem == "alpaca"
                else {"conversations": [
                    {"from": "human", "value": f"Say {number}."}, {"from": "gpt", "value": text[:200]},
                    {"from": "human", "value": "Go on."}, {"from": "gpt", "value": text},
                ]}
            )  # fmt: skip
            out.write(("," if number else "[") * is_array + json.dumps(row) + "\n")
        out.write("]" * is_array)


def rates(command: str, folder: Path, options: argparse.Namespace) -> None:
    """Rows a second of whole processes, by turns."""
    target = str(folder / "out.jsonl")
    for name in ("alpaca.jsonl", "sharegpt.jsonl", "alpaca.json", "sharegpt.json"):
        path = folder / name
        write_rows(path, options.rows)
        contestants = {"ours": ([[sys.executable, "-c", OURS, str(path), target]], None)}
        if options.before:
            contestants["before"] = (contestants["ours"][0], {**os.environ, "PYTHONPATH": str(options.before)})
        lines, of_convmerge = str(path), list[list[str]]()
        if path.suffix == ".json":  # it reads lines alone, and has a command of its own that makes them
            lines = str(folder / "normalized.jsonl")
            of_convmerge.append([command, "normalize", "-i", str(path), "-o", lines])
        of_convmerge.append([command, "convert", "-i", lines, "-o", target, *OPTIONS])
        contestants["convmerge"] = (of_convmerge, None)
        seconds: dict[str, list[float]] = {who: [] for who in contestants}
        cpu_seconds: dict[str, list[float]] = {who: [] for who in contestants}
        for _ in range(options.repeats):
            for who, (commands, environment) in contestants.items():
                start, cpu_before = time.perf_counter(), cpu_of_children()
                for line in commands:
                    subprocess.run(line, check=True, capture_output=True, env=environment)
                seconds[who].append(time.perf_counter() - start)
                cpu_seconds[who].append(cpu_of_children() - cpu_before)
                with open(target, "rb") as written:
                    assert sum(1 for _ in written) == options.rows, who
        print(f"\n{name}, {options.rows} rows, {options.repeats} runs by turns:")
        for kind, measured in (("clock", seconds), ("CPU time", cpu_seconds)):
            medians = {who: options.rows / statistics.median(values) for who, values in measured.items()}
            speeds = ", ".join(f"{who} {speed:,.0f} rows/s" for who, speed in medians.items())
            times = (f"{medians['ours'] / speed:.2f} times {who}" for who, speed in medians.items() if who != "ours")
            print(f"  by {kind}: {speeds}; ours {', '.join(times)}", flush=True)
        path.unlink()


def cpu_of_children() -> float:
    """Seconds of CPU time that finished processes started here have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
