"""The environment that a program which computes should have from its first instruction, and starting again with it.

Two things cannot be changed once a process runs: which allocator gives out memory, and how long threads of OpenMP spin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tutelage.system.allocator import better_allocator, preloading
from tutelage.system.openmp_wait import bounds_of_waiting

STARTED_AGAIN = "TUTELAGE_STARTED_AGAIN"
"""Set in a process that was started again, so that it does not do so for ever."""


def environment_to_compute_in(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with the better allocator, if it is here, and the bounds that `system.openmp_wait` changes.

    Args:
        environment: variables, as in `os.environ`.
    """
    library = better_allocator(environment)
    preloaded = dict(environment) if library is None else preloading(library, environment)
    return {**preloaded, **bounds_of_waiting(environment), STARTED_AGAIN: "1"}


def start_again() -> None:
    """Replace this process by the same command in that environment, once; its number stays, so launchers do not notice.

    Nothing happens where it would change nothing, or where that was done already.
    """
    if os.environ.get(STARTED_AGAIN):
        return
    wanted = environment_to_compute_in(os.environ)
    if wanted != {**os.environ, STARTED_AGAIN: "1"}:
        os.execve(sys.executable, sys.orig_argv, wanted)  # noqa: S606 what runs already
