"""Training on one NVIDIA GPU: exactness, speed, memory beside what the planner says, and TRL on the same rows.

    python -m benchmarks.cuda.run --tokenizer FOLDER --work FOLDER --cells 135m,1b

Every cell is a process of its own, by turns; models have published shapes and random weights. Speed is the median over
steps, the first ones left out; the share of the matrix limit is 6 or 4 FLOP a token and matrix parameter over the rate
of one large bf16 product, measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.cuda.shapes import write_instructions, write_model
from benchmarks.train.contestants import told_by
from benchmarks.train.limit import TOKEN_FACTOR_FLOP, linear_shapes
from benchmarks.train.measured import Method, Task
from benchmarks.train.workload import write_examples

WARM_STEPS = 3
STEPS = 8
SQUARE = 8192


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: whose, of which shape, how, and with which settings."""

    name: str
    shape: str
    method: Method
    overrides: tuple[str, ...] = ()
    trl: str = ""
    micro_examples: int = 16
    batch_size: int = 128


def row_tokens(count: int) -> str:
    """The setting."""
    return f"pack.row_tokens={count}"


COMPILED = "model.compile=true"
RECOMPUTED = "train.activation_checkpointing=on"
KEPT = "train.activation_checkpointing=off"

GROUPS: dict[str, list[Cell]] = {
    "135m": [
        *(Cell(f"rows of {one:,}", "smollm2-135m", "full", (row_tokens(one), KEPT)) for one in (2048, 8192, 32768)),
        Cell("rows of 32,768, compiled", "smollm2-135m", "full", (row_tokens(32768), KEPT, COMPILED)),
        Cell("rows of 32,768", "smollm2-135m", "lora", (row_tokens(32768), KEPT)),
        Cell("TRL, bf16 mixed, Liger, 32 x 4", "smollm2-135m", "full", trl="mixed", micro_examples=32),
    ],
    "1b": [
        *(Cell(f"rows of {one:,}", "llama-3.2-1b", "full", (row_tokens(one), KEPT)) for one in (2048, 8192, 16384)),
        Cell("rows of 8,192, compiled", "llama-3.2-1b", "full", (row_tokens(8192), KEPT, COMPILED)),
        Cell("rows of 8,192, checkpointing", "llama-3.2-1b", "full", (row_tokens(8192), RECOMPUTED)),
        Cell("rows of 8,192", "llama-3.2-1b", "lora", (row_tokens(8192), KEPT)),
        Cell("TRL, bf16 mixed, Liger, 16 x 8", "llama-3.2-1b", "full", trl="mixed"),
        Cell("TRL, bf16 mixed, Liger, 16 x 8", "llama-3.2-1b", "lora", trl="mixed"),
    ],
    "3b": [
        Cell("rows of 8,192, as the planner chooses", "llama-3.2-3b", "full", (row_tokens(8192),)),
        Cell("rows of 8,192, QLoRA", "llama-3.2-3b", "lora", (row_tokens(8192), KEPT, "model.method=qlora")),
    ],
    "8b": [Cell("rows of 8,192", "llama-3.1-8b", "lora", (row_tokens(8192), KEPT))],
}


def matrix_rate() -> float:
    """FLOP a second of a large bf16 product on random numbers: the median of twenty, by the GPU's own clock."""
    a, b = (torch.randn(SQUARE, SQUARE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(23):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.mm(a, b)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2.0 * SQUARE**3 / statistics.median(times[3:])


def run_cell(cell: Cell, task: Task, work: Path, trl_python: str | None) -> dict[str, Any]:
    """Train once in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    ours = not cell.trl
    path = work / "task.json"
    path.write_text(json.dumps(asdict(task)), encoding="utf-8")
    python = sys.executable if ours else str(trl_python)
    module = "benchmarks.cuda.cell" if ours else "benchmarks.train.by_trl"
    offline = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_DATASETS_CACHE": str(work / "datasets")}
    return told_by(python, module, path, os.environ | offline)


def line(cell: Cell, found: dict[str, Any], step_tokens: list[int], parameters: int, rate: float) -> str:
    """A line of the table."""
    seconds = found["step_seconds"][WARM_STEPS:]
    speed = statistics.median(
        tokens / one for tokens, one in zip(step_tokens[WARM_STEPS : WARM_STEPS + len(seconds)], seconds, strict=True)
    )
    share = speed * TOKEN_FACTOR_FLOP[cell.method] * parameters / rate
    peak, plan = "reserved_bytes" if "reserved_bytes" in found else "peak_bytes", "-"
    if "predicted" in found:
        figures = found["predicted"]
        total = sum(size for name, size in figures.items() if name != "checkpointing")
        held = found["reserved_bytes"] + found["outside_bytes"]
        again = ", recomputes" if figures["checkpointing"] else ""
        plan = f"{total / 1e9:.2f} of {held / 1e9:.2f} GB ({total / held:.3f}{again})"
    allocated = found.get("allocated_bytes")
    shown = "-" if allocated is None else f"{allocated / 1e9:.2f}"
    return f"| {cell.name} | {cell.method} | {speed:,.0f} | {share:.0%} | {found[peak] / 1e9:.2f} | {shown} | {plan} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="model folder whose tokenizer the models get")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models that are made")
    parser.add_argument("--cells", default=",".join(GROUPS), help="which groups")
    parser.add_argument("--trl-python", help="a Python that has TRL; left out, TRL is")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/cuda.json"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    rate = matrix_rate()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16 products {rate / 1e12:.0f} TFLOP/s")
    rows = write_instructions(asked.work / "rows.jsonl", count=(STEPS + 1) * 128)
    raw: list[dict[str, Any]] = []
    for name in asked.cells.split(","):
        cells = [group for group in GROUPS[name] if not group.trl or asked.trl_python]
        model = write_model(cells[0].shape, asked.tokenizer, asked.work / cells[0].shape)
        parameters = sum(outputs * inputs * count for (outputs, inputs), count in linear_shapes(model).items())
        base = Task(
            rows=str(rows), examples=str(asked.work / "examples.jsonl"), model_folder=str(model),
            prepared_folder=str(asked.work), method="full", numerics="mixed", micro_examples=1, batch_size=128,
            steps=STEPS,
        )  # fmt: skip
        workload = write_examples(base, "random words")
        print(f"\n### {cells[0].shape}: {workload.step_tokens[-1]:,} tokens in the last step of 128 rows\n")
        print("| | method | tokens/s | of the limit | GB taken | GB used | planned of really taken |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for cell in cells * asked.repeats:
            task = replace(
                base,
                method=cell.method,
                overrides=list(cell.overrides),
                micro_examples=cell.micro_examples,
                batch_size=cell.batch_size,
                numerics=cell.trl or "mixed",
                fused_kernels=bool(cell.trl),
            )
            try:
                found = run_cell(cell, task, asked.work, asked.trl_python)
            except RuntimeError as error:
                print(f"| {cell.name} | {cell.method} | failed |\n{error}", flush=True)
                continue
            raw.append({"cell": asdict(cell), "found": found, "step_tokens": workload.step_tokens})
            print(line(cell, found, workload.step_tokens, parameters, rate), flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"rate": rate, "cells": raw}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
