"""Each remedy against forgetting on one job: its price in time, the task, what was forgotten, how far the model moved.

python -m benchmarks.remedies.run --folder runs/remedies
python -m benchmarks.remedies.run --folder /tmp/trial --max-steps 2 --rows 32 --only none replay-5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.remedies.remedies import NONE, Remedy, plain, remedies
from benchmarks.remedies.table import table
from benchmarks.train.machine import this_machine

from tutelage import config
from tutelage.config.settings import Settings
from tutelage.runs.folder import RESULT, read_json
from tutelage.system.startup import training_environment

HERE = Path(__file__).parents[2]
GENERAL = "datasets/general_train.jsonl"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="of the runs; those that are finished there are kept"
    )
    parser.add_argument("--recipe", default="recipes/quickstart.toml")
    parser.add_argument("--general", default=GENERAL, help="general rows: replayed, and taken out of data.train")
    parser.add_argument("--probes", nargs="+", default=["probes"], help="what shows what was forgotten")
    parser.add_argument("--max-steps", type=int, help="of each run, for a trial")
    parser.add_argument("--rows", type=int, help="of the task's training rows, for a trial")
    parser.add_argument("--only", nargs="+", default=[], help="folders of the remedies to run, such as none replay-5")
    parser.add_argument(
        "--set", nargs="+", default=[], help="settings of every run, such as evaluate.max_new_tokens=32"
    )
    return parser.parse_args(arguments)


def settings_of(asked: argparse.Namespace) -> Settings:
    """Of the recipe without a remedy."""
    overrides = [f"folder={asked.folder}", *asked.set]
    overrides += [] if asked.max_steps is None else [f"train.max_steps={asked.max_steps}"]
    overrides += [] if asked.rows is None else [f"data.max_rows={asked.rows}"]
    return plain(asked.recipe, asked.general, asked.probes, overrides)


def result_of(remedy: Remedy, settings: Settings, folder: Path) -> Mapping[str, Any]:
    """Of a run in a process of its own; of one that finished with the same settings before, as it is there."""
    recipe, run = folder / f"{remedy.folder}.toml", folder / remedy.folder
    recipe.parent.mkdir(parents=True, exist_ok=True)
    scratch = recipe.with_suffix(".base")
    scratch.write_text(config.dump(settings), encoding="utf-8")
    wanted = config.dump(config.load(scratch, [f"name={remedy.folder}", *remedy.overrides]))
    is_there = recipe.is_file() and recipe.read_text(encoding="utf-8") == wanted and (run / RESULT).is_file()
    scratch.unlink()
    if not is_there:
        recipe.write_text(wanted, encoding="utf-8")
        command = [sys.executable, "-m", "tutelage", "train", str(recipe)]
        subprocess.run(command, check=True, env=training_environment(os.environ), stdout=sys.stderr)
    return read_json(run / RESULT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not there yet, in the order of the table, and print the table after each."""
    asked = options(arguments)
    settings = settings_of(asked)
    chosen = [one for one in remedies(settings, asked.general) if not asked.only or one.folder in asked.only]
    if unknown := set(asked.only) - {one.folder for one in chosen}:
        sys.exit(f"no such remedy: {', '.join(sorted(unknown))}")
    results: dict[str, Mapping[str, Any]] = {}
    for number, remedy in enumerate(chosen, start=1):
        print(f"{remedy.name}: {number} of {len(chosen)}", file=sys.stderr, flush=True)
        results[remedy.name] = result_of(remedy, settings, asked.folder)
        (asked.folder / "table.md").write_text(table(results, first=NONE) + "\n", encoding="utf-8")
    print(this_machine())
    print(table(results, first=NONE))


if __name__ == "__main__":
    main()
