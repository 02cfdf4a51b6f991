"""One training run by TRL's SFTTrainer on tokenized rows; prints one JSON line. Runs in an environment with TRL.

PYTHON_WITH_TRL -m benchmarks.train.by_trl TASK.json
"""

from __future__ import annotations

import tempfile

from benchmarks.train.hugging_face import Watch
from benchmarks.train.measured import Task, task_from_arguments


def main(task: Task) -> None:
    """Train once."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    adapters = LoraConfig(
        r=task.lora_rank, lora_alpha=2 * task.lora_rank, lora_dropout=0.0, target_modules="all-linear"
    )
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            max_length=1024,
            per_device_train_batch_size=task.micro_examples,
            gradient_accumulation_steps=task.accumulated,
            max_steps=task.steps,
            learning_rate=task.learning_rate,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            use_liger_kernel=task.fused_kernels,
            bf16=task.numerics == "mixed",
            gradient_checkpointing=False,  # this model fits without; recomputing would only slow TRL down
            train_sampling_strategy="sequential",
            include_num_input_tokens_seen="non_padding",
            disable_tqdm=True,
            model_init_kwargs={"dtype": torch.bfloat16 if task.numerics == "bf16" else torch.float32},
        )
        trainer = SFTTrainer(
            model=task.model_folder,
            args=settings,
            train_dataset=Dataset.from_list(task.read_examples()),
            processing_class=AutoTokenizer.from_pretrained(task.model_folder),
            peft_config=adapters if task.method == "lora" else None,
            callbacks=[watch.callback()],
        )
        trainer.train()
    watch.tell("trl", "transformers", "peft", "torch")


if __name__ == "__main__":
    main(task_from_arguments())
