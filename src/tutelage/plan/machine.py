"""Where a model would be trained: this machine, and GPUs by name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a device needs beside tensors: bytes of the process itself, and the share that its allocator wastes."""

    process_bytes: int
    heap_share: float
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device with its memory.

    Attributes:
        name: as people call it.
        memory_bytes: all of it for a named GPU; what is free for this machine.
        total_bytes: all of it.
        overhead: beside tensors.
        peak_operations_per_second: of bf16 products; None where it is not known.
        bandwidth_bytes_per_second: of its memory; None where it is not known.
        is_here: this machine.
        source: where the figures come from.
    """

    name: str
    memory_bytes: int
    total_bytes: int
    overhead: Overhead
    peak_operations_per_second: float | None
    bandwidth_bytes_per_second: float | None
    is_here: bool
    source: str


def this_machine() -> Device:
    """The device that training would use here, with the memory that is free now."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Device(name, free, total, overheads()["gpu"], None, None, True, "torch.cuda.mem_get_info")
    free, total, source = _main_memory()
    return Device("this machine, CPU", free, total, overheads()["cpu"], None, None, True, source)


def named_gpus() -> tuple[Device, ...]:
    """The GPUs of `gpus.toml`, smallest first."""
    overhead = overheads()["gpu"]
    return tuple(
        Device(
            name=one["name"],
            memory_bytes=one["memory_gb"] * 10**9,
            total_bytes=one["memory_gb"] * 10**9,
            overhead=overhead,
            peak_operations_per_second=one["bf16_teraflops"] * 1e12,
            bandwidth_bytes_per_second=one["bandwidth_gb_per_second"] * 1e9,
            is_here=False,
            source=one["source"],
        )
        for one in _facts("gpus.toml")["gpu"]
    )


def overheads() -> dict[str, Overhead]:
    """By kind of device, from `overheads.toml`."""
    return {name: Overhead(**values) for name, values in _facts("overheads.toml").items()}


def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads(files("tutelage.plan").joinpath(name).read_text(encoding="utf-8"))


def _main_memory() -> tuple[int, int, str]:
    """Bytes available without swapping, bytes in all, and who says so."""
    facts = Path("/proc/meminfo")
    if facts.is_file():
        lines = dict(line.split(":", 1) for line in facts.read_text(encoding="utf-8").splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        return free, total, "MemAvailable of /proc/meminfo"
    import psutil  # accelerate, which PEFT needs, brings it

    found = psutil.virtual_memory()
    return found.available, found.total, "psutil.virtual_memory"
