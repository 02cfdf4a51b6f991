"""What machine this is, as far as it matters for training speed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from tutelage.model.load import NATIVE_BF16_FLAGS


def facts() -> dict[str, str | int | float | list[str]]:
    """Processor, cores, memory, what it multiplies in hardware, and how busy it is."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next((line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "")
    flags = set(cpu.split())
    return {
        "processor": name or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "bf16_in_hardware": sorted(flags & NATIVE_BF16_FLAGS),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def sentence() -> str:
    """The same in one line."""
    found = facts()
    return (
        f"{found['cores']} cores of {found['processor']} ({found['vectors']}, bf16 in hardware: "
        f"{', '.join(map(str, found['bf16_in_hardware'])) if isinstance(found['bf16_in_hardware'], list) and found['bf16_in_hardware'] else 'no'}), "
        f"{float(str(found['memory_bytes'])) / 2**30:.0f} GiB, Python {found['python']}, torch {found['torch']}, "
        f"load {float(str(found['load'])):.1f}"
    )
