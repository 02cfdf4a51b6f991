"""Our reader of rows beside convmerge's: what both make of each shape, and rows a second.

    python benchmarks/formats/run.py
    python benchmarks/formats/run.py --material FOLDER_OF_PUBLISHED_FILES --convmerge EXISTING_PROGRAM

The other program gets an environment of its own in a temporary folder, made here with pip. Rates are of whole processes
that read a file of rows and write them as messages, one after the other by turns; those by CPU time, its start and
imports included, depend little on what else the machine does. Ours are written with the encoder that comes with it.
"""

from __future__ import annotations

import argparse
import json
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = options.convmerge or installed(Path(folder) / "environment")
        shapes(command)
        if options.material:
            material(command, options.material, Path(folder))
        rates(command, Path(folder), options.rows, options.repeats)


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


def rates(command: str, folder: Path, rows: int, repeats: int) -> None:
    """Rows a second of whole processes, by turns."""
    text = "The tide in the harbor of Kiel is low in the morning, and the wind comes from the west. " * 4
    for name in ("alpaca", "sharegpt"):
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for number in range(rows):
                row = (
                    {"instruction": f"Say {number}.", "input": text[:80], "output": text}
                    if name == "alpaca"
                    else {"conversations": [
                        {"from": "human", "value": f"Say {number}."}, {"from": "gpt", "value": text[:200]},
                        {"from": "human", "value": "Go on."}, {"from": "gpt", "value": text},
                    ]}
                )  # fmt: skip
                out.write(json.dumps(row) + "\n")
        seconds: dict[str, list[float]] = {"ours": [], "convmerge": []}
        cpu_seconds: dict[str, list[float]] = {"ours": [], "convmerge": []}
        target = str(folder / "out.jsonl")
        for _ in range(repeats):
            for who, line in (
                ("ours", [sys.executable, "-c", OURS, str(path), target]),
                ("convmerge", [command, "convert", "-i", str(path), "-o", target, *OPTIONS]),
            ):
                start, cpu_before = time.perf_counter(), cpu_of_children()
                subprocess.run(line, check=True, capture_output=True)
                seconds[who].append(time.perf_counter() - start)
                cpu_seconds[who].append(cpu_of_children() - cpu_before)
                with open(target, "rb") as written:
                    assert sum(1 for _ in written) == rows, who
        print(f"\n{name}, {rows} rows, {repeats} runs by turns:")
        for kind, measured in (("clock", seconds), ("CPU time", cpu_seconds)):
            medians = {who: rows / statistics.median(values) for who, values in measured.items()}
            print(
                f"  by {kind}: ours {medians['ours']:,.0f} rows/s, convmerge {medians['convmerge']:,.0f} rows/s, "
                f"{medians['ours'] / medians['convmerge']:.2f} times"
            )


def cpu_of_children() -> float:
    """Seconds of CPU time that finished processes started here have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
