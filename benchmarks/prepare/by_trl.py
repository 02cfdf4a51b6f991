"""One preparation by TRL's SFTTrainer of the same rows; prints one JSON line. Runs in an environment that has TRL.

    PYTHON_WITH_TRL benchmarks/prepare/by_trl.py ROWS.jsonl MODEL_FOLDER --form prompt_completion [--processes N]

Timed is `SFTTrainer._prepare_dataset` alone: neither reading the file, nor making messages of the rows, nor the model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("rows", type=Path)
parser.add_argument("model_folder", type=Path)
parser.add_argument("--form", choices=("prompt_completion", "messages"), required=True)
parser.add_argument("--processes", type=int)
ASKED = parser.parse_args()


def row_as(form: str, row: dict[str, str]) -> dict[str, Any]:
    """The row as TRL takes it: with its reply apart (trained alone), or as messages (all tokens trained)."""
    prompt = "\n\n".join(text for text in (row["instruction"], row["input"]) if text)
    asked, said = {"role": "user", "content": prompt}, {"role": "assistant", "content": row["output"]}
    return {"messages": [asked, said]} if form == "messages" else {"prompt": [asked], "completion": [said]}


def main() -> None:
    """Prepare once."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    seconds: list[float] = []

    class Timed(SFTTrainer):
        def _prepare_dataset(self, *arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            made = super()._prepare_dataset(*arguments, **options)
            seconds.append(time.perf_counter() - started)
            return made

    tokenizer = AutoTokenizer.from_pretrained(ASKED.model_folder)
    small = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    lines = ASKED.rows.read_text(encoding="utf-8").split("\n")
    rows = [row_as(ASKED.form, json.loads(line)) for line in lines if line]
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_length=1024, dataset_num_proc=ASKED.processes, use_cpu=True, bf16=False, report_to=[]
        )
        trainer = Timed(
            model=LlamaForCausalLM(small),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        made = trainer.train_dataset
        tokens = sum(len(ids) for ids in made["input_ids"])
        trained = sum(label != -100 for labels in made["labels"] for label in labels)
    print(json.dumps({"rows": len(rows), "seconds": seconds[0], "tokens": tokens, "trained_tokens": trained}))


if __name__ == "__main__":
    main()
