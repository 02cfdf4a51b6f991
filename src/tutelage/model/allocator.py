"""Which allocator gives out memory: with glibc's own, training on a CPU takes up to 1.6 times the memory it needs.

torch asks for aligned memory, and before glibc 2.38 a freed piece of the heap is not found again for an aligned request
(glibc bug 14581). tcmalloc finds it, and keeps pages that glibc would give back and fetch again. It must be there
before the first request, so the program starts itself again with it. Source: docs/log.md, "Another allocator".
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

CHOICE = "TUTELAGE_ALLOCATOR"
"""The environment variable that chooses: `system` for that of the C library, or the path of a library."""
SYSTEM = "system"
STARTED_AGAIN = "TUTELAGE_STARTED_AGAIN"
PRELOAD = "LD_PRELOAD"
KNOWN = ("tcmalloc", "jemalloc", "mimalloc")
LIBRARIES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
FOLDERS = ("/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "{prefix}/lib")
"""Where Debian, Fedora, Arch, a build by hand and conda put it."""
INSTALL = "apt install libtcmalloc-minimal4 (Debian, Ubuntu), dnf install gperftools-libs, or conda install gperftools"


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
    if chosen == SYSTEM or environment.get(STARTED_AGAIN) or any(one in environment.get(PRELOAD, "") for one in KNOWN):
        return None
    if chosen:
        return Path(chosen)
    if platform.libc_ver()[0] != "glibc" or Path("/proc/driver/nvidia/version").exists():
        return None
    folders = [Path(one.format(machine=platform.machine(), prefix=sys.prefix)) for one in FOLDERS]
    places = (folder / library for folder in folders for library in LIBRARIES)
    return next((one for one in places if one.is_file()), None)


def allocator_of_runs() -> str:
    """What `tutelage train` would give out memory with if it were started now, as `allocator_here` names it."""
    library = better_allocator(os.environ)
    named = "" if library is None else library.name
    return next((name for name in KNOWN if name in named), allocator_here())


def preloading(library: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that starts with `library`, and does not start itself again."""
    preloaded = " ".join(filter(None, (str(library), environment.get(PRELOAD))))
    return {**environment, PRELOAD: preloaded, STARTED_AGAIN: "1"}


def start_again_with(library: Path) -> None:
    """Replace this process by the same command with `library` in it; its number stays, so launchers do not notice."""
    os.execve(sys.executable, sys.orig_argv, preloading(library, os.environ))  # noqa: S606 what runs already
