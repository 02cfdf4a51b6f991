"""Memory ran out: which errors say so, and how large a row may be from then on."""

from __future__ import annotations

import torch

from tutelage.errors import FitError, TutelageError
from tutelage.train.memory import give_back
from tutelage.types import Row

SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch's plain RuntimeErrors say when an allocation fails. Source: c10/core/impl/alloc_cpu.cpp for the CPU; the
driver and cuBLAS for what torch's own CUDA allocator, which raises OutOfMemoryError, does not serve."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that memory ran out, and nothing else."""
    if isinstance(error, TutelageError):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


def smaller_budget(row: Row) -> int:
    """Tokens a row may have after `row` did not fit: half as many.

    Raises:
        FitError: the row is a single document, which cannot be divided.
    """
    tokens = len(row.ids)
    if len(row.addresses) > 1:
        return tokens // 2
    raise FitError(
        "One example alone does not fit in memory",
        where=", ".join(map(str, row.addresses)),
        found=f"{tokens} tokens in a row of its own",
        expected="room for its forward and backward pass",
        fix=f'set pack.max_tokens below {tokens}, model.method = "lora" or model.precision = "bf16"',
    )


def return_memory() -> None:
    """Give back what the failed pass has freed, on whichever device it ran."""
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
