"""Training speed and peak memory of tutelage, TRL, LitGPT and LLaMA-Factory: the same rows and weights, by turns.

    python -m benchmarks.train.run --environments FOLDER --material FOLDER --repeats 3
    python -m benchmarks.train.run --environments FOLDER --rows ALPACA.jsonl --methods lora --tools tutelage,trl

Every run is a process of its own. Seconds are those of the steps alone, taken inside each tool; loading, preparing and
saving are left out. Peak memory is the process's highest resident size up to the end of the last step. It fails where
the tools disagree about the number of tokens or about the loss of the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.train.contestants import TOOLS, contestants, measure, python_of
from benchmarks.train.figures import (
    LOSS_TOLERANCES,
    Runs,
    first_loss_spread,
    odd_tokens,
    table,
    tokens_a_second,
    verdict,
)
from benchmarks.train.machine import this_machine
from benchmarks.train.measured import Method, Task
from benchmarks.train.workload import Workload, write_examples, write_rows

from tutelage.model.locate import model_folder
from tutelage.model.precision import Precision, resolve_precision

OUT = Path("runs/benchmarks/train.json")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, help="folder that environments.sh filled")
    parser.add_argument("--rows", type=Path, help="Alpaca rows, a JSON array or JSON lines; the first of them are used")
    parser.add_argument("--material", type=Path, help="folder of published files to make Alpaca-like rows of")
    parser.add_argument("--count", type=int, default=64, help="how many rows")
    parser.add_argument("--batch", type=int, default=16, help="examples an optimizer step")
    parser.add_argument("--steps", type=int, default=4, help="at least 2: speed is taken from the second on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", default="full,lora")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto: bf16 where the hardware multiplies it, fp32 elsewhere, where bf16 is many times slower for all",
    )
    parser.add_argument("--no-plain", action="store_true", help="leave out the settings that no ratio is taken of")
    parser.add_argument("--preload", action="store_true", help="give the others the allocator that ours finds, too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a setting of ours")
    parser.add_argument("--out", type=Path, default=OUT, help="file for all raw figures")
    asked = parser.parse_args()
    if asked.steps < 2 or asked.steps * asked.batch > asked.count:
        parser.error("--steps must be at least 2, and --count at least --steps times --batch")
    return asked


def measure_by_turns(asked: argparse.Namespace, task: Task, precision: Precision, tokens: list[int]) -> list[Runs]:
    """All contestants of one method, one after the other in each repeat."""
    chosen = contestants(precision, asked.tools.split(","), plain=not asked.no_plain, preloaded=asked.preload)
    runs = [Runs(one) for one in chosen]
    for each in runs:
        python_of(each.contestant.tool, asked.environments)  # a missing one shows before hours are spent
    for repeat in range(asked.repeats):
        for each in runs:
            busy = os.getloadavg()[0]
            one = measure(each.contestant, task, asked.environments)
            each.measured.append(one)
            print(
                f"  {task.method}, repeat {repeat + 1}: {each.contestant.name}: "
                f"{tokens_a_second(one.step_seconds, tokens):,.0f} tokens/s, {one.peak_bytes / 1e9:.2f} GB, "
                f"loss {one.step_losses[0]:.4f} (load before: {busy:.1f})",
                flush=True,
            )
    return runs


def conclude(method: Method, runs: list[Runs], workload: Workload, precision: Precision) -> list[str]:
    """Print the table and the ratios of one method; return what is wrong with them."""
    print(f"\n### {method}\n\n{table(runs, workload.step_tokens)}\n")
    for same in (True, False):
        if (found := verdict(runs, workload.step_tokens, same_numerics=same)) is not None:
            print(f"{'With fp32 trained weights' if same else 'Whatever the numerics'}: {found.sentence()}")
    problems = [
        f"{method}: {name} counted {count:,} tokens instead of {sum(workload.step_tokens):,}"
        for name, count in odd_tokens(runs, workload.step_tokens).items()
    ]
    spread, tolerance = first_loss_spread(runs), LOSS_TOLERANCES[precision]
    print(f"Losses of the first step lie within {spread:.5f} (allowed {tolerance})")
    if spread > tolerance:
        problems.append(f"{method}: losses of the first step lie {spread:.5f} apart, allowed {tolerance}")
    return problems


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    precision = resolve_precision(asked.precision)
    base = model_folder(asked.model)
    problems: list[str] = []
    here = this_machine()
    raw: dict[str, Any] = {"machine": asdict(here), "precision": precision, "methods": {}}
    print(here.sentence())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = write_rows(asked.rows, asked.material, asked.count, folder / "rows.jsonl")
        for method in asked.methods.split(","):
            task = Task(
                rows=str(folder / "rows.jsonl"),
                examples=str(folder / "examples.jsonl"),
                model_folder=str(base),
                prepared_folder=str(asked.environments or folder),
                method=method,
                numerics="fp32",
                micro_examples=1,
                batch_size=asked.batch,
                steps=asked.steps,
                overrides=asked.set,
            )
            workload = write_examples(task, about)
            raw["workload"] = asdict(workload)
            if not raw["methods"]:
                print(
                    f"{about}; {sum(workload.step_tokens):,} tokens, {workload.trained_tokens:,} of them trained, "
                    f"{asked.steps} steps of {asked.batch} rows; computing in {precision}"
                )
            runs = measure_by_turns(asked, task, precision, workload.step_tokens)
            problems += conclude(method, runs, workload, precision)
            raw["methods"][method] = [asdict(each) for each in runs]
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(raw | {"problems": problems}, indent=1), encoding="utf-8")
    print(f"\nAll raw figures: {asked.out}")
    if problems:
        raise SystemExit("The comparison does not hold:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
