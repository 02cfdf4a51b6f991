"""The program, where process 1 fails as it measures: `fails_in_two.py WHAT ARGUMENTS`.

WHAT is "memory": held-out rows of more than 150 tokens, and more than one prompt at once, are too much for it;
"heldout": the second held-out loss in training fails otherwise; "replies": so does each reply; "room": it has none for
all of a model that was shared, once it is trained.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tutelage.cli import main
from tutelage.distributed.fsdp import FSDPRoot
from tutelage.evaluate import heldout
from tutelage.generate import replies
from tutelage.generate.engine import Engine
from tutelage.train import loop

LARGEST_TOKENS = 150
what = sys.argv[1]
in_row: list[bool] = []
measurements: list[int] = []
rooms: list[int] = []
padded = replies.padded_replies
row_sum, measured, room = heldout._row_sum, loop._measured, FSDPRoot._require_memory


def fail() -> None:
    if what in {"memory", "room"}:  # as torch's allocator for the CPU says it
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 8 bytes")
    raise IndexError("index out of range in self")


def noted_row(*given: Any) -> tuple[float, int]:
    in_row.append(True)
    try:
        return row_sum(*given)
    finally:
        in_row.pop()


def counted(*given: Any, **named: Any) -> float:
    measurements.append(1)
    return measured(*given, **named)


def limited(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
    """Between two layers: a process that shares the model with others waits for this one in the next."""
    if not in_row or not isinstance(module, LlamaDecoderLayer) or module.self_attn.layer_idx != 1:
        return
    if (what == "memory" and given[0].shape[-2] > LARGEST_TOKENS) or (what == "heldout" and len(measurements) == 2):
        fail()


class Limited(Engine):
    """The engine that answers, not the one that is tried beforehand."""

    def generate(self, requests: Any, *rest: Any) -> Any:
        if what == "replies" or (what == "memory" and min(len(requests), self._active_replies) > 1):
            fail()
        return super().generate(requests, *rest)


def answered(model: Any, tokenizer: Any, prompts: Any, *rest: Any) -> list[list[int]]:
    """Prompts that are answered without the engine, as those that are asked one at a time."""
    if what == "replies":
        fail()
    return padded(model, tokenizer, prompts, *rest)


def required(fsdp_root: FSDPRoot) -> None:
    rooms.append(1)
    if what == "room" and len(rooms) > 1:  # the first is for what is tried of the model before it is trained
        fail()
    room(fsdp_root)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        register_module_forward_pre_hook(limited)
        heldout._row_sum, loop._measured = noted_row, counted
        replies.Engine, replies.padded_replies = Limited, answered
        FSDPRoot._require_memory = required
    sys.argv = ["tutelage", *sys.argv[2:]]
    main()
