"""The environment that a program which computes should have from its first instruction, and starting again with it.

Two things cannot be changed once a process runs: which allocator gives out memory, and how long threads of OpenMP spin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tutelage.system.allocator import better_allocator, preload_environment
from tutelage.system.openmp_wait import spin_settings

RESTARTED = "TUTELAGE_STARTED_AGAIN"
"""Set in a process that was started again, so that it does not do so for ever."""


def training_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with the better allocator, if it is here, and the bounds between which `openmp_wait` changes.

    Args:
        environment: variables, as in `os.environ`.
    """
    library = better_allocator(environment)
    preloaded = dict(environment) if library is None else preload_environment(library, environment)
    return {**preloaded, **spin_settings(environment), RESTARTED: "1"}


def restart_with_environment() -> None:
    """Replace this process by the same command in that environment, once; its number stays, so launchers do not notice.

    Nothing happens where it would change nothing, or where that was done already.
    """
    if os.environ.get(RESTARTED):
        return
    target_environment = training_environment(os.environ)
    if target_environment != {**os.environ, RESTARTED: "1"}:
        os.execve(sys.executable, sys.orig_argv, target_environment)  # noqa: S606 what runs already
