"""The memory that one long row takes, and its loss: `long_row.py on|off TOKENS`, where "on" computes activations again.

Writes the growth of the peak in bytes, the loss, and the number of trained tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.types import PackedSequence


def peak_bytes() -> int:
    """The kernel's own mark; getrusage counts the parent's memory at the start of this process as well."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def learn(model: Any, tokens: int) -> tuple[torch.Tensor, int]:
    ids = np.random.default_rng(0).integers(0, 416, tokens).astype(np.int32)
    weights = np.ones(tokens, dtype=np.float32)
    weights[0] = 0
    row = PackedSequence(ids, weights, np.arange(tokens, dtype=np.int32), (tokens,), ())
    loss, count = row_loss(model, row)
    (loss / count).backward()
    return loss, count


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"vocab_size": 416, "hidden_size": 64, "intermediate_size": 512, "max_position_embeddings": 8192}
    heads = {"num_hidden_layers": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).train()
    use_packed_attention(model)
    if sys.argv[1] == "on":
        recompute_activations(model)
    learn(model, 64)  # libraries that load late are no activations
    before = peak_bytes()
    loss, count = learn(model, int(sys.argv[2]))
    sys.stdout.write(f"{peak_bytes() - before} {loss.item()} {count}\n")
