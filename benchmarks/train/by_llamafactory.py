"""One training run by LLaMA-Factory on tokenized rows; prints one JSON line. Runs in an environment with LLaMA-Factory.

PYTHON_WITH_LLAMAFACTORY -m benchmarks.train.by_llamafactory TASK.json

It has no bf16 weights on a CPU: its `pure_bf16` asks for a GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.train.hugging_face import Watch
from benchmarks.train.measured import Task, task_from_arguments


def main(task: Task) -> None:
    """Train once."""
    from datasets import Dataset, DatasetDict
    from llamafactory.train.tuner import run_exp

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in task.read_examples()]
        tokenized = Path(folder) / "tokenized"
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tokenized)
        adapters: dict[str, Any] = {"finetuning_type": "full"}
        if task.method == "lora":
            adapters = {
                "finetuning_type": "lora",
                "lora_rank": task.lora_rank,
                "lora_alpha": 2 * task.lora_rank,
                "lora_dropout": 0.0,
                "lora_target": "all",
            }
        settings: dict[str, Any] = {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": task.model_folder,
            "dataset": "tokenized",  # asked for, but not read: the tokenized rows take its place
            "tokenized_path": str(tokenized),
            "template": "chatml",
            "cutoff_len": 1024,
            "output_dir": str(Path(folder) / "run"),
            "per_device_train_batch_size": task.micro_examples,
            "gradient_accumulation_steps": task.accumulated,
            "max_steps": task.steps,
            "learning_rate": task.learning_rate,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": task.numerics == "mixed",
            "pure_bf16": task.numerics == "bf16",
            "disable_gradient_checkpointing": True,  # this model fits without; recomputing would only slow it down
            "disable_shuffling": True,
            "flash_attn": "sdpa",
            "include_num_input_tokens_seen": "non_padding",
            "disable_tqdm": True,
        }
        run_exp(settings | adapters, callbacks=[watch.callback()])
    watch.tell("llamafactory", "transformers", "peft", "torch")


if __name__ == "__main__":
    main(task_from_arguments())
