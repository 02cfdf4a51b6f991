"""One training run by LitGPT on tokenized rows; prints one JSON line. Runs in an environment with LitGPT.

PYTHON_WITH_LITGPT -m benchmarks.train.by_litgpt TASK.json

Times and losses are LitGPT's own, from its log: a line for each micro-batch of one row, with its seconds and the mean
of the losses of the step so far.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.train.measured import Measured, Task, peak_bytes, task_from_arguments, versions_of
from benchmarks.train.running_means import losses_of_steps
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data.base import DataModule, get_sft_collate_fn
from litgpt.prompts import PromptStyle
from torch.utils.data import DataLoader

CHECKPOINT_NAME = "SmolLM2-135M-Instruct"
PRECISIONS = {"fp32": "32-true", "mixed": "bf16-mixed", "bf16": "bf16-true"}
SEEN = "seen.jsonl"


class TokenizedRows(DataModule):
    """The rows as they are, in their order."""

    def __init__(self, rows: list[dict[str, list[int]]], micro_examples: int) -> None:
        super().__init__()
        self.rows = [
            {
                "input_ids": torch.tensor(row["input_ids"]),
                "labels": torch.tensor(row["labels"]),
                "token_counts": {"raw": len(row["input_ids"]), "raw_plus_prompt_template": len(row["input_ids"])},
            }
            for row in rows
        ]
        self.micro_examples = micro_examples
        self.prompt_style = PromptStyle.from_name("smollm2")

    def connect(self, *_given: Any, **_named: Any) -> None:
        """Nothing to tokenize."""

    def train_dataloader(self) -> DataLoader:
        """In order, as the others train."""
        return self._loader(self.rows)

    def val_dataloader(self) -> DataLoader:
        """One row: LitGPT insists on a look at it before it trains."""
        return self._loader(self.rows[:1])

    def _loader(self, rows: list[dict[str, Any]]) -> DataLoader:
        return DataLoader(rows, batch_size=self.micro_examples, shuffle=False, collate_fn=get_sft_collate_fn())


class WatchedAdamW(torch.optim.AdamW):
    """AdamW that writes down, at the end of each step, the process's peak and what it steps.

    LitGPT saves (and merges adapters) when it has trained, which must not count; its settings take an optimizer by its
    class path, so this one looks in time.
    """

    def __init__(self, parameters: Any, *, seen: str, lr: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=0.0, fused=True)
        self.seen = Path(seen)

    def step(self, *given: Any, **named: Any) -> Any:
        """One step, then a line about it."""
        result = super().step(*given, **named)
        trained = [one for group in self.param_groups for one in group["params"] if one.requires_grad]
        line = {
            "peak_bytes": peak_bytes(),
            "dtypes": sorted({str(one.dtype).removeprefix("torch.") for one in trained}),
            "parameters": sum(one.numel() for one in trained),
        }
        with self.seen.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        return result


def checkpoint(task: Task) -> Path:
    """The model in LitGPT's own format, converted once, in another process, whose memory is not counted."""
    folder = Path(task.prepared_folder) / "litgpt_checkpoints" / CHECKPOINT_NAME
    if not folder.is_dir():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(task.model_folder, making)
        convert = [sys.executable, "-m", "litgpt", "convert_to_litgpt", str(making), "--model_name", CHECKPOINT_NAME]
        subprocess.run(convert, check=True)
        making.rename(folder)
    return folder


def train(task: Task, folder: Path) -> None:
    """LitGPT's own finetuning function."""
    shared: dict[str, Any] = {
        "checkpoint_dir": checkpoint(task),
        "out_dir": folder,
        "precision": PRECISIONS[task.numerics],
        "data": TokenizedRows(task.read_examples(), task.micro_examples),
        "train": TrainArgs(
            save_interval=None,
            log_interval=1,
            global_batch_size=task.batch_size,
            micro_batch_size=task.micro_examples,
            lr_warmup_steps=1,
            epochs=1,
            max_steps=task.steps,
            max_seq_length=1024,
        ),
        "eval": EvalArgs(
            interval=task.steps + 1, max_iters=1, max_new_tokens=1, initial_validation=False, final_validation=False
        ),
        "optimizer": {
            "class_path": "benchmarks.train.by_litgpt.WatchedAdamW",
            "init_args": {"lr": task.learning_rate, "seen": str(folder / SEEN)},
        },
        "logger_name": "csv",
    }
    if task.method == "full":
        from litgpt.finetune.full import setup

        setup(**shared)
        return
    from litgpt.finetune.lora import setup as setup_lora

    adapters = {"lora_r": task.lora_rank, "lora_alpha": 2 * task.lora_rank, "lora_dropout": 0.0}
    adapters |= dict.fromkeys((f"lora_{part}" for part in ("query", "key", "value", "projection", "mlp")), True)
    # LitGPT saves the settings that it finds on the command line and merges the adapters by them.
    sys.argv = ["litgpt", str(shared["checkpoint_dir"]), *(f"--{name}={value}" for name, value in adapters.items())]
    setup_lora(**shared, **adapters)


def main(task: Task) -> None:
    """Train once."""
    assert task.micro_examples == 1, "the losses of single rows are read off the log"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(task, folder)
        log = next(folder.rglob("metrics.csv"))
        lines = [line for line in csv.DictReader(log.open(encoding="utf-8")) if line.get("iter_time")]
        seen = json.loads((folder / SEEN).read_text(encoding="utf-8").splitlines()[task.steps - 1])
    seconds = [float(line["iter_time"]) for line in lines]
    trained = [sum(label != -100 for label in row["labels"][1:]) for row in task.read_examples()[: task.batch_size]]
    starts = range(0, task.steps * task.accumulated, task.accumulated)
    Measured(
        step_seconds=[sum(seconds[start : start + task.accumulated]) for start in starts],
        step_losses=losses_of_steps([float(line["loss"]) for line in lines], trained, task.accumulated),
        tokens=int(float(lines[-1]["total_tokens"])),
        peak_bytes=seen["peak_bytes"],
        trained_dtype=", ".join(seen["dtypes"]),
        trained_parameters=seen["parameters"],
        versions=versions_of("litgpt", "lightning", "torch"),
    ).tell()


if __name__ == "__main__":
    main(task_from_arguments())
