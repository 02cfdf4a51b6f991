"""Memory that was freed goes back to the system: rows of many lengths leave glibc's heap full of holes."""

from __future__ import annotations

import ctypes
import platform

GIVE_BACK_EVERY_STEPS = 4
"""Often enough that the heap does not grow over a run; each time costs the next step some page faults."""


def give_back() -> None:
    """Ask glibc to return free heap pages; nothing happens with another C library.

    Source: docs/log.md, "Memory of full fine-tuning on a CPU".
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
