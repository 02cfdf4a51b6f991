"""What TRL would train on the same pairs, by TRL's own data preparation. Runs in an environment of its own.

    python -m venv trl_environment
    trl_environment/bin/pip install torch==2.13.0 "trl==1.16.*"
    trl_environment/bin/python -m benchmarks.masks.trl_masks runs/masks --vocabulary FILE --out runs/masks/trl.jsonl

Reads kept.jsonl and templates.jsonl of a run of benchmarks.masks.run, and the vocabulary that run used first. Two ways
of TRL are asked: "assistant" is `assistant_only_loss=True` on messages; "completion" is a prompt and the last turn as
its completion.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.masks.checkpoints import BaseTokenizer, write_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

PackedSequence = dict[str, Any]
MODES = ("assistant", "completion")


class Rows:
    """A data set of one row, as far as TRL's preparation looks at it: each row may fail alone."""

    def __init__(self, row: PackedSequence) -> None:
        self.row = row
        self.column_names = list(row)

    def __iter__(self) -> Iterator[PackedSequence]:
        return iter([dict(self.row)])

    def map(
        self, function: Callable[..., PackedSequence], fn_kwargs: PackedSequence | None = None, **more: Any
    ) -> Rows:
        """Apply at once; `remove_columns` as in the datasets library."""
        made = {**self.row, **function(dict(self.row), **(fn_kwargs or {}))}
        gone = more.get("remove_columns") or []
        for name in [gone] if isinstance(gone, str) else gone:
            made.pop(name, None)
        return Rows(made)

    def select_columns(self, names: list[str]) -> Rows:
        """Keep some columns."""
        return Rows({name: value for name, value in self.row.items() if name in names})


def smallest_model() -> LlamaForCausalLM:
    """A model that is never run: the trainer wants one, and writes into its settings."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))


def trainer_for(folder: Path, mode: str, model: LlamaForCausalLM) -> SFTTrainer:
    """TRL's trainer with its template chosen, and nothing prepared yet."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    tokenizer.pad_token = tokenizer.eos_token
    sample: PackedSequence = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    if mode == "completion":
        sample = {"prompt": sample["messages"][:1], "completion": sample["messages"][1:]}
    from datasets import Dataset

    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        assistant_only_loss=mode == "assistant",
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to=[],
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(model=model, args=settings, train_dataset=Dataset.from_list([sample]), processing_class=tokenizer)


def trained_by(trainer: SFTTrainer, kept: PackedSequence, mode: str) -> PackedSequence:
    """Ids of TRL's sequence and the positions that it trains, or why it refuses."""
    messages = kept["messages"]
    row: PackedSequence = {"messages": messages}
    if mode == "completion":
        last = max(index for index, one in enumerate(messages) if one["role"] == "assistant")
        row = {"prompt": messages[:last], "completion": messages[last : last + 1]}
    if kept["tools"]:
        row["tools"] = kept["tools"]
    try:
        made = trainer._prepare_dataset(Rows(row), trainer.processing_class, trainer.args, False, None, "train").row
    except Exception as error:  # noqa: BLE001 whatever TRL does with a row is the finding
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    trained = [position for position, label in enumerate(made["labels"]) if label != -100]
    return {"ids": list(made["input_ids"]), "trained": trained}


def main() -> None:
    """Ask TRL about every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the --out folder of benchmarks.masks.run")
    parser.add_argument("--vocabulary", type=Path, required=True, help="tokenizer.json that the run used first")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    kept: dict[str, list[PackedSequence]] = defaultdict(list)
    for line in _lines(options.results / "kept.jsonl"):
        kept[line["template"]].append(line)
    with options.out.open("w", encoding="utf-8") as stream, tempfile.TemporaryDirectory() as scratch:
        for facts in _lines(options.results / "templates.jsonl"):
            path = Path(facts["path"])
            base = BaseTokenizer("first", options.vocabulary)
            folder = Path(scratch) / path.stem
            source = path.read_text(encoding="utf-8")
            write_checkpoint(folder, base, source, control=tuple(facts["control"]), stops=tuple(facts["stops"]))
            for mode in MODES:
                for found in _asked(folder, mode, kept[path.stem], smallest_model()):
                    stream.write(json.dumps(found) + "\n")


def _lines(path: Path) -> Iterator[PackedSequence]:
    """The lines of a JSONL file; never by splitlines, which also breaks at line separators inside a text."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        yield from map(json.loads, stream)


def _asked(folder: Path, mode: str, rows: list[PackedSequence], model: LlamaForCausalLM) -> Iterator[PackedSequence]:
    try:
        trainer = trainer_for(folder, mode, model)
        refusal = None
    except Exception as error:  # noqa: BLE001 the refusal is the finding
        refusal = {"refused": f"{type(error).__name__}: {error}"[:300]}
    for row in rows:
        found = refusal or trained_by(trainer, row, mode)
        yield {"template": row["template"], "case": row["case"], "mode": mode, **found}


if __name__ == "__main__":
    main()
