"""Memory that was freed goes back to the system: rows of many lengths leave a heap full of holes."""

from __future__ import annotations

import ctypes
import platform

from tutelage.system.allocator import allocator_here

TRIM_EVERY_STEPS = 4
"""Often enough that the heap does not grow over a run; each time costs the next step some page faults."""


def trim_heap() -> None:
    """Ask tcmalloc, mimalloc or glibc to return free pages; nothing happens with another C library.

    Source: docs/log.md, "Memory of full fine-tuning on a CPU".
    """
    if platform.libc_ver()[0] != "glibc":
        return
    process = ctypes.CDLL(None)
    allocator = allocator_here()
    if allocator == "tcmalloc":
        process.MallocExtension_ReleaseFreeMemory()
    elif allocator == "mimalloc":
        process.mi_collect(True)
    elif allocator == "glibc":
        process.malloc_trim(0)
