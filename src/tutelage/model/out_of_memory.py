"""Memory ran out: which errors say so, and what is given back before the next attempt."""

from __future__ import annotations

import torch

from tutelage.errors import TutelageError
from tutelage.system.heap import trim_heap

ALLOCATION_FAILURES = (
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
    return isinstance(error, RuntimeError) and any(message in str(error) for message in ALLOCATION_FAILURES)


def release_memory() -> None:
    """Give back what the failed pass has freed, on whichever device it ran."""
    trim_heap()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
