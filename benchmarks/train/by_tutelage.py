"""One training run by tutelage, the whole of `tutelage train` on the rows; prints one JSON line.

python -m benchmarks.train.by_tutelage TASK.json
"""

from __future__ import annotations

import json
import struct
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.train.measured import Measured, Task, task_from_arguments, versions_of
from rich.console import Console

from tutelage import config
from tutelage.config import Settings
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run

PRECISIONS = {"fp32": "fp32", "mixed": "bf16"}


def settings_for(task: Task, folder: Path) -> Settings:
    """The settings of a run that only trains."""
    values: dict[str, Any] = {
        "folder": str(folder),
        "model": {"name": task.model_folder, "method": task.method, "precision": PRECISIONS[task.numerics]},
        "data": {"train": [task.rows]},
        "pack": {"max_seq_length": 1024},
        "evaluate": {"before": False},
        "train": {
            "batch_size": task.batch_size,
            "max_steps": task.steps,
            "learning_rate": task.learning_rate,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
        },
    }
    if task.method == "lora":
        values["lora"] = {"rank": task.lora_rank, "alpha": 2 * task.lora_rank, "target_modules": "all-linear"}
    return config.from_mapping(values, task.overrides, where="benchmark")


def trained_weights(checkpoints: Path) -> tuple[str, int]:
    """Number formats and count of the weights in a run's newest checkpoint, read from the files' headers."""
    formats, count = set(), 0
    newest = max(path for path in checkpoints.iterdir() if path.is_dir())
    for path in newest.rglob("*.safetensors"):
        with path.open("rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__" and ":" not in name:  # moments carry their kind before a colon
                formats.add({"F32": "float32", "BF16": "bfloat16"}.get(entry["dtype"], entry["dtype"]))
                size = 1
                for length in entry["shape"]:
                    size *= length
                count += size
    return ", ".join(sorted(formats)), count


def main(task: Task) -> None:
    """Train once."""
    with tempfile.TemporaryDirectory() as name:
        settings = settings_for(task, Path(name))
        run(settings, Screen(Console(quiet=True)))
        text = (settings.run_folder / run_files.RECORD).read_text(encoding="utf-8")
        steps = [line for line in map(json.loads, text.splitlines()) if "loss" in line]
        trained_dtype, trained_parameters = trained_weights(settings.run_folder / run_files.CHECKPOINTS)
    ends = [0.0, *(step["elapsed_seconds"] for step in steps)]
    Measured(
        step_seconds=[later - earlier for earlier, later in pairwise(ends)],
        step_losses=[step["loss"] for step in steps],
        tokens=sum(step["tokens"] for step in steps),
        peak_bytes=steps[-1]["peak_bytes"],
        trained_dtype=trained_dtype,
        trained_parameters=trained_parameters,
        versions=versions_of("tutelage", "transformers", "peft", "torch"),
    ).tell()


if __name__ == "__main__":
    main(task_from_arguments())
