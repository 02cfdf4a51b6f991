"""Memory goes back to the system: what was freed, and pages of files that were gone over."""

from __future__ import annotations

import ctypes
import mmap
import platform
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def release_pages(values: NDArray[np.generic]) -> None:
    """Let go of the pages of a memory-mapped array that was gone over; they are read again when they are asked for.

    Nothing happens where the array lies in memory alone, as a look at the process's own map shows, or on another system
    than Linux.

    Args:
        values: contiguous, in a file; of one that is mapped shared what was written stays in the file.
    """
    start = -(-values.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (values.ctypes.data + values.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0 and values.flags.c_contiguous and _is_of_a_file(start, start + length):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _is_of_a_file(start: int, end: int) -> bool:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:  # 7f0000000000-7f0000001000 rw-s 00000000 08:01 1234 /the/file
        addresses, rights, _, _, inode = line.split(maxsplit=5)[:5]
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= start and end <= last:
            # Of a private map (as Arrow makes it) a page that was written is nowhere else.
            return inode != "0" and (rights.endswith("s") or rights[1] == "-")
    return False
