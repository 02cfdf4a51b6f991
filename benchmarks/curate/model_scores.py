"""How fast `curate`'s `model_scores` reads rows, beside a plain loop of transformers over the same rows.

    python benchmarks/curate/model_scores.py ROWS.jsonl [--rows 300] [--rounds 3] [--precision bf16]

The loop pads batches of 8 in the order of the file, computes both losses of each row, and makes its logits at trained
positions alone (`logits_to_keep` would keep a stretch), as `row_loss` does. Both take turns in one process; what is
printed is processor time, as a machine with others on it has no other clock. The losses must agree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tutelage import formats
from tutelage.builders.scoring_model import ALONE, LocalModel, open_scoring_model
from tutelage.curate.block_cache import MOST_ROWS
from tutelage.curate.scoring_model import ModelRequest, ReplyLosses
from tutelage.ledger import Ledger
from tutelage.model.precision import DTYPES
from tutelage.types import Conversation, Drop, Example

BATCH = 8


def documents_of(model: LocalModel, rows: list[Conversation]) -> list[Example]:
    """The sequences of all rows, with their prompts and alone, made beforehand for the loop."""
    outcomes = model.renderer.prove(rows)
    made: list[Example] = []
    for number, outcome in enumerate(outcomes):
        if not isinstance(outcome, Drop) and not model._too_long(outcome.examples):
            made += model._documents(number, outcome.examples)
    return made


def padded_loop(network: Any, documents: list[Example]) -> dict[tuple[str, int], float]:
    """Mean loss by kind and row, batches padded to their longest."""
    sums: dict[tuple[str, int], list[float]] = {}
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        longest = max(len(document.ids) for document in batch)
        ids, mask = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(2))
        for line, document in enumerate(batch):
            ids[line, : len(document.ids)] = torch.from_numpy(document.ids)
            mask[line, : len(document.ids)] = 1
        with torch.inference_mode():
            states = network.model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            for line, document in enumerate(batch):
                targets = torch.from_numpy(np.flatnonzero(document.weights))
                logits = network.lm_head(states[line, targets - 1]).float()
                losses = cross_entropy(logits, ids[line, targets], reduction="none").double()
                kept = sums.setdefault((document.address.file, document.address.number), [0.0, 0])
                kept[0] += float(losses.sum())
                kept[1] += len(targets)
    return {key: nats / tokens for key, (nats, tokens) in sums.items()}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    given = parser.parse_args()
    rows = list(formats.read([given.source], ledger=Ledger(), max_rows=given.rows))
    model = open_scoring_model(ModelRequest("benchmark", given.model, precision=given.precision))
    documents = documents_of(model, rows)
    network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=DTYPES[given.precision]).eval()
    model.losses(rows[:2])  # loads it
    padded_loop(network, documents[:2])
    seconds: dict[str, list[float]] = {"model_scores": [], "padded loop": []}
    for _ in range(given.rounds):
        started = time.process_time()
        ours: list[Any] = []
        for start in range(0, len(rows), MOST_ROWS // 2):
            ours += model.losses(rows[start : start + MOST_ROWS // 2])
        seconds["model_scores"].append(time.process_time() - started)
        started = time.process_time()
        plain = padded_loop(network, documents)
        seconds["padded loop"].append(time.process_time() - started)
    differences = [
        abs(found.alone - plain[ALONE, number]) for number, found in enumerate(ours) if isinstance(found, ReplyLosses)
    ]
    tokens, threads = sum(len(document.ids) for document in documents), torch.get_num_threads()
    print(f"{len(rows)} rows, {tokens:,} tokens with and without prompts, {given.precision}, {threads} threads")
    for name, found in seconds.items():
        median, all_rounds = statistics.median(found), ", ".join(f"{one:.1f}" for one in found)
        print(f"{name}: {median:.1f} s of processor time ({all_rounds}), {len(rows) / median:.2f} rows/s")
    print(f"largest difference of a loss without its prompt: {max(differences):.2g}")


if __name__ == "__main__":
    main()
