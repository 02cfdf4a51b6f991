"""Near-duplicates of real files by comparing every row with every other, beside those that our step finds.

    python benchmarks/curate/near_recall.py --data FILE [FILE ...] [--columns prompt=KEY response=KEY] [--on prompt]

The definition is written again here, with sets of words and nothing of ours: runs of five words of the prompt and of
the reply, Jaccard similarity of at least 0.8 over both and 0.5 on each side, a row kept in the order of the file unless
it is like a kept one. Printed for each file: rows, pairs that are alike, rows that should go, rows that go with
templates compared like all else (`template_share = 1`), the share of the former that do and of the latter that should,
and the rows that go as the step is set, with templates left out.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.curate.texts import prompt_text, reply_text
from tutelage.formats import read
from tutelage.ledger import Ledger

WHOLE, SIDE, RUN = 0.8, 0.5, 5


def runs(text: str) -> set[tuple[str, ...]]:
    """Runs of five words; all words where there are fewer."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + RUN]) for start in range(max(1, len(words) - RUN + 1))} if words else set()


def alike(sides: list[list[set[tuple[str, ...]]]]) -> dict[int, list[int]]:
    """For each row the earlier ones that are near-duplicates of it, by comparing it with each that shares a run.

    Args:
        sides: of each row, the sets of its prompt and its reply.
    """
    holders: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    sizes = np.array([[len(side) for side in row] for row in sides])
    found: dict[int, list[int]] = {}
    for row, both in enumerate(sides):
        shared = np.zeros((row, 2), dtype=np.int64)
        for side, of_side in enumerate(both):
            lists = [holders[side, run] for run in of_side if (side, run) in holders]
            if lists:
                shared[:, side] = np.bincount(np.concatenate(lists), minlength=row)
            for run in of_side:
                holders[side, run].append(row)
        totals = sizes[:row] + sizes[row] - shared
        with np.errstate(invalid="ignore"):
            share = np.where(totals > 0, shared / totals, 1.0)
        is_alike = (shared.sum(axis=1) >= WHOLE * totals.sum(axis=1)) & (share >= SIDE).all(axis=1)
        is_alike &= totals.sum(axis=1) > 0
        if is_alike.any():
            found[row] = np.flatnonzero(is_alike).tolist()
    return found


def should_go(near: dict[int, list[int]]) -> set[int]:
    """Rows that are like a row that is kept, in their order."""
    gone: set[int] = set()
    for row in sorted(near):
        if any(other not in gone for other in near[row]):
            gone.add(row)
    return gone


def dropped(path: Path, columns: dict[str, str], on: str, template_share: float) -> dict[int, int]:
    """The rows that the step drops, with the row that stands for each."""
    changed = {"on": on, "cluster_share": 1.0, "template_share": template_share}
    settings = CurateSettings.model_validate({"steps": ["near_duplicates"], "near_duplicates": changed})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        curate(CurationRequest((str(path),), out, settings, columns=columns, workers=1))
        entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    return {entry["row"]: entry["anchor"] for entry in entries if "merged" in entry}


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--columns", nargs="*", default=[], help="prompt=KEY response=KEY")
    parser.add_argument("--on", default="both", choices=("both", "prompt", "reply"))
    asked = parser.parse_args()
    columns = dict(pair.split("=", 1) for pair in asked.columns)
    heads = ("rows", "pairs", "should go", "go", "recall", "precision", "go, templates")
    print(f"{'file':48}" + "".join(f"{head:>15}" for head in heads))
    for path in asked.data:
        ledger = Ledger()
        rows = list(read([str(path)], ledger=ledger, columns=columns))
        if ledger.rows_in != len(rows):
            raise SystemExit(f"{path.name}: rows are dropped in reading, so numbers of rows would not be the same")
        texts = [("" if asked.on == "reply" else prompt_text(row), "" if asked.on == "prompt" else reply_text(row))
                 for row in rows]  # fmt: skip
        near = alike([[runs(prompt), runs(reply)] for prompt, reply in texts])
        expected, met = should_go(near), set(dropped(path, columns, asked.on, 1.0))
        both = len(expected & met)
        cells = (
            f"{len(rows):,}", f"{sum(map(len, near.values())):,}", f"{len(expected):,}", f"{len(met):,}",
            f"{both / len(expected):.4f}" if expected else "", f"{both / len(met):.4f}" if met else "",
            f"{len(dropped(path, columns, asked.on, 0.001)):,}",
        )  # fmt: skip
        print(f"{path.name:48}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
