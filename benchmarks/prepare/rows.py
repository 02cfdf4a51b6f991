"""Alpaca-like rows (instruction, input, output) built from published data by path; nothing of them is kept here.

    python benchmarks/prepare/rows.py --material ../shared/material/data --rows 9990 --out /tmp/rows.jsonl

Rows beyond those that the files hold repeat them with a number in front, so that no two rows are equal.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALCULATOR_MARK = re.compile(r"<<[^>]*>>")
SHARES = {"gsm8k_train.jsonl": 7473, "flan_cot_aqua.tsv": 2000, "flan_cot_qasc.tsv": 517}
"""Rows taken of each file; together 9,990, about 220 tokens each with a chat template around them."""
SECOND_WORDS = "flan_cot_gsm8k.tsv"
"""The same problems solved in other words: every second answer is followed by its retelling."""


@dataclass(frozen=True, slots=True)
class AlpacaRow:
    """One row as Alpaca has it."""

    instruction: str
    input: str
    output: str

    def line(self) -> str:
        """The row as a line of JSON."""
        return json.dumps({"instruction": self.instruction, "input": self.input, "output": self.output}) + "\n"


def base_rows(material: Path) -> list[AlpacaRow]:
    """The 9,990 rows, in a fixed order that mixes the files.

    Raises:
        SystemExit: one of the files is not there.
    """
    absent = [name for name in (*SHARES, SECOND_WORDS) if not (material / name).is_file()]
    if absent:
        raise SystemExit(f"{material} lacks {', '.join(absent)}; --material names the folder that holds these files.")
    rows: list[AlpacaRow] = []
    for name, count in SHARES.items():
        path = material / name
        reader = _grade_school(path, material / SECOND_WORDS) if path.suffix == ".jsonl" else _reasoned(path)
        rows += itertools.islice(reader, count)
    return [rows[(index * 7919) % len(rows)] for index in range(len(rows))]  # a stride without a common divisor


def varied(rows: list[AlpacaRow], count: int) -> Iterator[AlpacaRow]:
    """`count` rows, all different: repeats carry their number in instruction and output."""
    for index in range(count):
        row = rows[index % len(rows)]
        if index < len(rows):
            yield row
        else:
            yield AlpacaRow(f"Case {index}. {row.instruction}", row.input, f"{row.output}\n(case {index})")


def write(material: Path, count: int, out: Path) -> str:
    """Write the rows; return a sentence about what was made."""
    rows = base_rows(material)
    characters = []
    with out.open("w", encoding="utf-8") as stream:
        for row in varied(rows, count):
            characters.append(len(row.instruction) + len(row.input) + len(row.output))
            stream.write(row.line())
    with_input = sum(bool(row.input) for row in rows)
    return (
        f"{count:,} rows from {len(rows):,} ({', '.join(f'{n} {name}' for name, n in SHARES.items())}): "
        f"{statistics.mean(characters):.0f} characters each (median {statistics.median(characters):.0f}), "
        f"{with_input / len(rows):.0%} with an input"
    )


def _grade_school(path: Path, second_words: Path) -> Iterator[AlpacaRow]:
    retold = second_words.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")):
        row = json.loads(line)
        answer = CALCULATOR_MARK.sub("", row["answer"])
        if number % 2:
            answer += f"\nIn other words: {retold[number].split(chr(9))[2]}"
        if number % 3:
            yield AlpacaRow(row["question"], "", answer)
        else:
            yield AlpacaRow("Solve this problem and show each step.", row["question"], answer)


def _reasoned(path: Path) -> Iterator[AlpacaRow]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        question, answer, reason = line.split("\t")
        asked, _, options = question.replace("\\n", "\n").partition("\nOptions:\n")
        yield AlpacaRow(asked, options.strip(), f"{reason.replace(chr(92) + 'n', chr(10))}\nSo the answer is {answer}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--rows", type=int, default=9990)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    print(write(asked.material, asked.rows, asked.out))
