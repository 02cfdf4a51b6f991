"""What this machine has, and which path a run will take on it. Imports without torch and says where it is absent."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tutelage.system.allocator import INSTALL, training_allocator
from tutelage.system.main_memory import main_memory

NATIVE_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU flags that mean bf16 products in hardware, as /proc/cpuinfo spells them (x86 and ARM). Elsewhere PyTorch computes
them in software, many times slower than fp32."""
FLASH_CAPABILITY = (8, 0)
"""The oldest GPUs with bf16 and flash attention (Ampere). Source: the README of FlashAttention-2, "Requirements"."""
TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "peft", "safetensors")
OPTIONAL_PACKAGES = ("gguf", "bitsandbytes", "triton")
COMPILERS = ("c++", "g++", "clang++")
LOW_DISK_BYTES = 10 << 30
"""A 0.6B model takes about this: its files twice, and checkpoints with masters and two moments in fp32."""
LOW_MEMORY_BYTES = 4 << 30
"""What LoRA on a model of 135M parameters took at its peak. Source: docs/log.md."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device that torch sees."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    bf16: bool


@dataclass(frozen=True, slots=True)
class Torch:
    """The torch that is installed: `cuda` is the version it was built for, None for a CPU build."""

    version: str
    cuda: str | None
    threads: int
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine; None is what could not be found out, or is not there.

    `cores` are those this process may use, `quota_cores` what a container grants of them; `allocator` is what a
    training run gives out memory with.
    """

    system: str
    python: str
    cpu: str | None
    cores: int
    quota_cores: float | None
    cpu_bf16: bool
    memory_bytes: int | None
    available_bytes: int | None
    disk_free_bytes: int
    torch: Torch | None
    torch_trouble: str | None
    nvidia_driver: bool
    packages: dict[str, str | None]
    compiler: str | None
    allocator: str


@dataclass(frozen=True, slots=True)
class Route:
    """What a run does here unless its recipe says otherwise."""

    device: str
    precision: str
    attention: str
    optimizer: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a run from working, or slows it, and one thing to do about it."""

    what: str
    fix: str


def machine() -> Machine:
    """Look at this machine."""
    torch, trouble = _torch()
    memory = main_memory()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=processor_name(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        quota_cores=_quota_cores(),
        cpu_bf16=cpu_multiplies_bf16(),
        memory_bytes=memory.total_bytes,
        available_bytes=memory.available_bytes,
        disk_free_bytes=shutil.disk_usage(Path.cwd()).free,
        torch=torch,
        torch_trouble=trouble,
        nvidia_driver=Path("/proc/driver/nvidia/version").exists(),
        packages={name: _version(name) for name in TRAINING_PACKAGES + OPTIONAL_PACKAGES},
        compiler=_compiler(),
        allocator=training_allocator(),
    )


def route_on(hardware: Machine) -> Route | None:
    """Which path a run takes by default; None where it cannot run."""
    if hardware.torch is None:
        return None
    gpu = hardware.torch.gpus[0] if hardware.torch.gpus else None
    bf16 = hardware.cpu_bf16 if gpu is None else gpu.bf16
    flash = gpu is not None and bf16 and gpu.capability >= FLASH_CAPABILITY
    kernel = "products in bf16" if gpu is None and bf16 else "torch's own"
    return Route(
        device="cpu" if gpu is None else "cuda",
        precision="bf16 computation, fp32 masters" if bf16 else "fp32",
        attention="flash attention over packed documents" if flash else f"{kernel}, document by document",
        optimizer="AdamW, fused, in fp32",
    )


def problems(hardware: Machine) -> list[Problem]:
    """What is wrong here, the worst first."""
    detected = []
    missing = [name for name in TRAINING_PACKAGES if hardware.packages[name] is None]
    if hardware.torch_trouble is not None:
        detected.append(Problem(f"torch cannot be imported: {hardware.torch_trouble}", "install it again"))
    elif missing:
        detected.append(Problem(f"Not installed: {', '.join(missing)}", "pip install 'tutelage[train]'"))
    if hardware.torch is not None and hardware.nvidia_driver and not hardware.torch.gpus:
        built = "built for the CPU" if hardware.torch.cuda is None else f"built for CUDA {hardware.torch.cuda}"
        what = f"There is an NVIDIA driver, but torch, {built}, sees no GPU"
        detected.append(Problem(what, "install the torch build that fits the driver; see pytorch.org, Get started"))
    if hardware.torch is not None and not hardware.torch.gpus and hardware.torch.threads < _usable_cores(hardware):
        what = f"torch computes with {hardware.torch.threads} of {_usable_cores(hardware)} cores"
        detected.append(Problem(what, "unset OMP_NUM_THREADS, or set model.threads in the recipe"))
    if (
        hardware.quota_cores is not None
        and hardware.torch is not None
        and hardware.torch.threads > hardware.quota_cores + 1
    ):
        what = (
            f"torch starts {hardware.torch.threads} threads, and this container may use {hardware.quota_cores:g} cores"
        )
        detected.append(Problem(what, f"set model.threads = {max(1, int(hardware.quota_cores))} in the recipe"))
    if hardware.allocator == "glibc" and hardware.torch is not None and not hardware.torch.gpus:
        detected.append(Problem("With glibc's allocator training takes up to 1.6 times the memory", INSTALL))
    if hardware.disk_free_bytes < LOW_DISK_BYTES:
        detected.append(Problem("Little disk is free here", "free some, or set folder=PATH in the recipe"))
    if hardware.available_bytes is not None and hardware.available_bytes < LOW_MEMORY_BYTES:
        detected.append(Problem("Little memory is free", 'end other programs; prefer model.method = "lora"'))
    return detected


def cpu_multiplies_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware; False where it does not say."""
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and bool(set(cpu.read_text(encoding="utf-8").split()) & NATIVE_BF16_FLAGS)


def _usable_cores(hardware: Machine) -> int:
    return hardware.cores if hardware.quota_cores is None else max(1, min(hardware.cores, int(hardware.quota_cores)))


def _torch() -> tuple[Torch | None, str | None]:
    if importlib.util.find_spec("torch") is None:
        return None, None
    try:
        import torch
    except (ImportError, OSError) as error:  # a library that torch loads is missing, or built for another system
        return None, str(error).strip().split("\n")[0]
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        bf16 = (facts.major, facts.minor) >= FLASH_CAPABILITY
        gpus.append(Gpu(facts.name, facts.total_memory, (facts.major, facts.minor), bf16))
    return Torch(torch.__version__, torch.version.cuda, torch.get_num_threads(), tuple(gpus)), None


def processor_name() -> str | None:
    """What the processor calls itself; None where nothing says it."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or None


def _quota_cores() -> float | None:
    file = Path("/sys/fs/cgroup/cpu.max")
    granted, _, period = file.read_text(encoding="utf-8").partition(" ") if file.is_file() else ("max", "", "")
    return None if granted == "max" else int(granted) / int(period)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compiler() -> str | None:
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        return None
    try:
        version_text = subprocess.run(  # noqa: S603 one of the compilers named above
            [path, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return version_text.split("\n")[0]


def peak_bytes() -> int:
    """Peak memory so far where the model computes: what PyTorch took of the GPU, or this process of the machine.

    Freed pieces that PyTorch keeps for later count: it is what must fit.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
