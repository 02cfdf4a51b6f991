"""What machine this is, as far as it matters for training speed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from tutelage.system.hardware import NATIVE_BF16_FLAGS


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, cores, memory, what it multiplies in hardware, and how busy it is."""

    processor: str
    cores: int
    memory_bytes: int
    vectors: str
    bf16_in_hardware: tuple[str, ...]
    threads: int
    load: float
    python: str
    torch: str

    def sentence(self) -> str:
        """The same in one line."""
        return (
            f"{self.cores} cores of {self.processor} ({self.vectors}, bf16 in hardware: "
            f"{', '.join(self.bf16_in_hardware) or 'no'}), {self.threads} threads, "
            f"{self.memory_bytes / 2**30:.0f} GiB, Python {self.python}, torch {self.torch}, load {self.load:.1f}"
        )


def this_machine() -> Machine:
    """Look; Linux only."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = (line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name"))
    return Machine(
        processor=next(names, platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        vectors=torch.backends.cpu.get_cpu_capability(),
        bf16_in_hardware=tuple(sorted(set(cpu.split()) & NATIVE_BF16_FLAGS)),
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        torch=str(torch.__version__),
    )
