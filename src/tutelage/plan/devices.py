"""Where a model would be trained: this machine, and GPUs by name."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import torch

from tutelage.system.allocator import training_allocator
from tutelage.system.main_memory import main_memory

TUNABLES = "GLIBC_TUNABLES"
FIXED_THRESHOLD = "glibc.malloc.mmap_threshold"
"""Where this is set, glibc maps every tensor apart and gives it back whole. As it comes, it raises the threshold by
itself, tensors share a heap, and before glibc 2.38 a freed piece of it is not found again for an aligned request, as
torch makes. Source: glibc bug 14581; measured in docs/plan.md."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a device needs beside tensors.

    Attributes:
        process_bytes: of the process itself.
        heap_share: what the allocator wastes, as a share of what comes and goes with each row.
        holds_file: the checkpoint's file is mapped into the same memory while it is read.
        source: where these figures come from.
        device: its kind.
    """

    process_bytes: int
    heap_share: float
    holds_file: bool
    source: str
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """One device with its memory.

    Attributes:
        name: as people call it.
        memory_bytes: all of it for a named GPU; what is free for this machine.
        total_bytes: all of it.
        overhead: beside tensors.
        peak_operations_per_second: of bf16 matmuls; None where it is not known.
        bandwidth_bytes_per_second: of its memory; None where it is not known.
        is_this_machine: it is the machine that this process runs on.
        source: where the figures come from.
    """

    name: str
    memory_bytes: int
    total_bytes: int
    overhead: Overhead
    peak_operations_per_second: float | None
    bandwidth_bytes_per_second: float | None
    is_this_machine: bool
    source: str


def this_machine() -> Device:
    """The device that training would use here, with the memory that is free now."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Device(name, free, total, overheads()["gpu"], None, None, True, "torch.cuda.mem_get_info")
    memory = main_memory()
    free = memory.total_bytes if memory.available_bytes is None else memory.available_bytes
    kind = overheads()[_kind_of_runs()]
    return Device("this machine, CPU", free, memory.total_bytes, kind, None, None, True, memory.source)


def _kind_of_runs() -> str:
    """The entry of `overheads.toml` for a training run on this machine's processor."""
    if training_allocator() != "glibc":
        return "cpu_tcmalloc"
    return "cpu_fixed" if FIXED_THRESHOLD in os.environ.get(TUNABLES, "") else "cpu"


def named_gpus() -> tuple[Device, ...]:
    """The GPUs of `gpus.toml`, smallest first."""
    overhead = overheads()["gpu"]
    return tuple(
        Device(
            name=gpu["name"],
            memory_bytes=gpu["memory_gb"] * 10**9,
            total_bytes=gpu["memory_gb"] * 10**9,
            overhead=overhead,
            peak_operations_per_second=gpu["bf16_teraflops"] * 1e12,
            bandwidth_bytes_per_second=gpu["bandwidth_gb_per_second"] * 1e9,
            is_this_machine=False,
            source=gpu["source"],
        )
        for gpu in _facts("gpus.toml")["gpu"]
    )


def overheads() -> dict[str, Overhead]:
    """By kind of device, from `overheads.toml`."""
    return {name: Overhead(**values) for name, values in _facts("overheads.toml").items()}


def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads(files("tutelage.plan").joinpath(name).read_text(encoding="utf-8"))
