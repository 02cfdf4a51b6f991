"""The program, where the memory of process 1 ends: `full_in_two.py LARGEST_TOKENS AFTER_ROWS ARGUMENTS`.

Once that process has learnt from `AFTER_ROWS` rows, its first layer refuses those of more than `LARGEST_TOKENS`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tutelage.cli import main
from tutelage.train import loop

largest_tokens, after_rows = map(int, sys.argv[1:3])
rows: list[int] = []
learning: list[bool] = []
learn = loop._forward_backward


def learnt(*given: Any) -> float:
    """A row of a step: what is tried of the model beforehand is none."""
    learning.append(True)
    try:
        return learn(*given)
    finally:
        learning.pop()


def limited(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
    """As torch's allocator for the CPU says it."""
    if not learning or not isinstance(module, LlamaDecoderLayer) or module.self_attn.layer_idx > 0:
        return
    rows.append(given[0].shape[-2])
    if rows[-1] > largest_tokens and len(rows) > after_rows:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 8 bytes")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        register_module_forward_pre_hook(limited)
        loop._forward_backward = learnt
    sys.argv = ["tutelage", *sys.argv[3:]]
    main()
