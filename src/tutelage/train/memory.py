"""Memory that was freed goes back to the system: rows of many lengths leave a heap full of holes."""

from __future__ import annotations

import ctypes
import platform

GIVE_BACK_EVERY_STEPS = 4
"""Often enough that the heap does not grow over a run; each time costs the next step some page faults."""


def give_back() -> None:
    """Ask glibc, or tcmalloc, to return free pages; nothing happens with another C library.

    Source: docs/log.md, "Memory of full fine-tuning on a CPU".
    """
    if platform.libc_ver()[0] != "glibc":
        return
    here = ctypes.CDLL(None)
    try:
        give = here.MallocExtension_ReleaseFreeMemory
    except AttributeError:  # tcmalloc is not there
        here.malloc_trim(0)
    else:
        give()
