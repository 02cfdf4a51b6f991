"""Which allocator gives out memory: with glibc's own, training on a CPU takes up to 1.6 times the memory it needs.

torch asks for aligned memory, and before glibc 2.38 a freed piece of the heap is not found again for an aligned request
(glibc bug 14581). tcmalloc and mimalloc find it, and keep pages that glibc would give back and fetch again. Either must
be there before the first request, so `system.startup` starts the program again with it. Source: docs/log.md, "Another
allocator".
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

CHOICE = "TUTELAGE_ALLOCATOR"
"""The environment variable that chooses: `system` for that of the C library, or the path of a library."""
SYSTEM = "system"
PRELOAD = "LD_PRELOAD"
KNOWN = ("tcmalloc", "jemalloc", "mimalloc")
LIBRARIES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libmimalloc.so.3", "libmimalloc.so.2")
FOLDERS = (
    "/usr/lib/{machine}-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "{prefix}/lib",
    "{packages}/cmeel.prefix/lib",
)
"""Where Debian, Fedora, Arch, a build by hand, conda and the wheel cmeel-mimalloc put it."""
INSTALL = "pip install --no-deps cmeel-mimalloc, or apt install libtcmalloc-minimal4 (Debian, Ubuntu)"


def allocator_here() -> str:
    """What gives out memory in this process: `tcmalloc`, `jemalloc`, `mimalloc`, or the C library's name."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text(encoding="utf-8", errors="replace") if maps.is_file() else ""
    return next((name for name in KNOWN if f"lib{name}" in loaded), platform.libc_ver()[0] or "the system's")


def better_allocator(environment: Mapping[str, str]) -> Path | None:
    """The library that a training run on this machine's processor should start with, if it is here.

    None where one was chosen already, or there is nothing to choose: on other systems than Linux with glibc, and beside
    a GPU, whose memory torch gives out itself.

    Args:
        environment: variables, as in `os.environ`.
    """
    chosen = environment.get(CHOICE, "")
    if chosen == SYSTEM or any(library in environment.get(PRELOAD, "") for library in KNOWN):
        return None
    if chosen:
        return Path(chosen)
    if platform.libc_ver()[0] != "glibc" or Path("/proc/driver/nvidia/version").exists():
        return None
    packages = sysconfig.get_path("purelib")
    folders = [
        Path(folder.format(machine=platform.machine(), prefix=sys.prefix, packages=packages)) for folder in FOLDERS
    ]
    candidates = (folder / library for folder in folders for library in LIBRARIES)
    return next((library for library in candidates if library.is_file()), None)


def allocator_warning(device: str) -> str | None:
    """One sentence where this process computes on a CPU with glibc's own allocator; None where it has a better one.

    Args:
        device: what is computed on, `cpu` or `cuda`.
    """
    if device != "cpu" or allocator_here() != "glibc":
        return None
    return f"Memory comes from glibc's allocator, which takes up to 1.6 times as much of it. Better: {INSTALL}"


def training_allocator() -> str:
    """What `tutelage train` would give out memory with if it were started now, as `allocator_here` names it."""
    library = better_allocator(os.environ)
    file_name = "" if library is None else library.name
    return next((name for name in KNOWN if name in file_name), allocator_here())


def preload_environment(library: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that has `library` in it from the start.

    Args:
        library: a shared library.
        environment: variables, as in `os.environ`.
    """
    return {**environment, PRELOAD: " ".join(filter(None, (str(library), environment.get(PRELOAD))))}
