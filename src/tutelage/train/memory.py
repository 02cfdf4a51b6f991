"""Memory that was freed goes back to the system: rows of many lengths leave glibc's heap full of holes."""

from __future__ import annotations

import ctypes
import platform


def give_back() -> None:
    """Ask glibc to return free heap pages; nothing happens with another C library.

    Source: docs/log.md, "Memory of full fine-tuning on a CPU".
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
