"""New tokens a second and peak memory of several ways to generate, the same prompts, by turns.

python -m benchmarks.generate.run --model FOLDER --contestants engine padded
python -m benchmarks.generate.run --model runs/quickstart/model --lengths own --count 200 --busy 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.generate.contestant import CONTESTANTS, LLAMA_CPP
from benchmarks.train.contention import busy_processes
from benchmarks.train.machine import this_machine

from tutelage.builders.renderer import renderer_for
from tutelage.config.sections import RenderSettings
from tutelage.model.locate import model_folder
from tutelage.model.precision import resolve_precision
from tutelage.system.startup import training_environment
from tutelage.types import Message

ROWS = Path(__file__).parents[2] / "datasets" / "support" / "test.jsonl"


def options() -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="short name or folder")
    parser.add_argument("--rows", type=Path, default=ROWS, help="conversations; each is asked without its last reply")
    parser.add_argument("--count", type=int, default=120, help="prompts")
    parser.add_argument("--batch", type=int, default=60, help="replies that grow together")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--lengths", choices=("own", "equal"), default="equal", help="equal: no reply stops by itself")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=None)
    parser.add_argument("--contestants", nargs="+", choices=(*CONTESTANTS, LLAMA_CPP), default=["engine", "padded"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0, help="processes that only count, meanwhile")
    return parser.parse_args()


def measured(name: str, job_file: Path) -> dict[str, Any]:
    """One run of a contestant, in the environment that `tutelage evaluate` starts itself again with."""
    command = [sys.executable, "-m", "benchmarks.generate.contestant", name, str(job_file)]
    environment = training_environment(os.environ)
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def served_prompts(asked: argparse.Namespace, folder: Path) -> list[list[int]]:
    """The ids of each row's conversation up to its last reply."""
    renderer = renderer_for(folder, RenderSettings())
    rows = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()][: asked.count]
    return [
        renderer.serve([Message(turn["role"], turn["content"]) for turn in row["messages"][:-1]]).tolist()
        for row in rows
    ]


def alike(replies: list[list[int]], expected: list[list[int]]) -> int:
    """How many replies are the same ids."""
    return sum(reply == other for reply, other in zip(replies, expected, strict=True))


def main() -> None:
    """Measure and print."""
    asked = options()
    folder = model_folder(asked.model)
    prompts = served_prompts(asked, folder)
    precision = asked.precision or resolve_precision("auto")
    job = {
        "model": str(folder), "prompts": prompts, "batch": asked.batch, "max_new_tokens": asked.max_new_tokens,
        "lengths": asked.lengths, "precision": precision,
    }  # fmt: skip
    print(this_machine().processor, precision, f"{len(prompts)} prompts of {sum(map(len, prompts)) / len(prompts):.0f}")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.contestants}
    with tempfile.TemporaryDirectory() as scratch, busy_processes(asked.busy):
        job_file = Path(scratch) / "job.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        for turn in range(asked.repeats):
            for name in asked.contestants if turn % 2 == 0 else asked.contestants[::-1]:
                results[name].append(result := measured(name, job_file))
                speed = result["tokens"] / result["seconds"]
                print(f"  turn {turn + 1}: {name} {speed:.0f} new tokens/s, {result['seconds']:.1f} s", flush=True)
    first, *others = asked.contestants
    for name, runs in results.items():
        speeds = sorted(run["tokens"] / run["seconds"] for run in runs)
        peak = max(run["peak_bytes"] for run in runs) / 2**20
        print(
            f"{name}: {statistics.median(speeds):.0f} new tokens/s ({speeds[0]:.0f} to {speeds[-1]:.0f}), "
            f"peak {peak:,.0f} MiB"
        )
    for name in others:
        ratios = [
            other["seconds"] / other["tokens"] / (ours["seconds"] / ours["tokens"])
            for ours, other in zip(results[first], results[name], strict=True)
        ]
        same = alike(results[first][0]["replies"], results[name][0]["replies"])
        print(
            f"{first} beside {name}: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to "
            f"{max(ratios):.2f}), {same} of {len(prompts)} replies the same"
        )


if __name__ == "__main__":
    main()
