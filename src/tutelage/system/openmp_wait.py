"""How long OpenMP's threads spin for each other before they sleep: shortly while other programs want the same cores.

torch's products run on OpenMP threads that meet at a barrier many times a layer. A thread that came first spins for
the others, which is the fastest where each has a core. Beside other work the thread it waits for may have no core, and
then the spinning keeps the core from it. GNU's runtime has two bounds: a long one, and a short one that holds while a
process has more OpenMP threads than it may use cores. So a watch looks how long this process's threads stand in line
for a core, and while that is long, a team of threads with nothing to do is held, which brings the short bound. Nothing
is computed otherwise by it. Source: libgomp's config/linux/wait.h and env.c (GCC 13), tried by
tests/system/test_openmp_wait.py; docs/log.md, "Beside other work".
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

SPIN_SETTINGS = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000"}
"""The long bound that the runtime has by itself, with a short one of 1,000 spins instead of 100: so few cost a third
more of the time beside other work. The runtime reads both as it is loaded."""
POLL_SECONDS = 0.25
CROWDED_SHARE, FREE_SHARE = 0.6, 0.35
"""Time in line for a core, as a share of a core's time, from which on threads sleep soon, and below which they spin
again. On two cores it is 0.01 alone, 0.1 beside a client that reads a served reply and 0.4 beside a program that is
busy half of the time, and up to there spinning is the faster; beside one that is always busy it is 0.9 while they spin,
which takes five times as long, and 0.5 while they sleep soon."""
MAX_IDLE_THREADS = 16
"""Threads that are started at most to bring the short bound, which takes one more than the cores without a thread."""
THREADS = Path("/proc/self/task")
OWN_SCHEDULE = Path("/proc/self/schedstat")
LOADED_FILES = Path("/proc/self/maps")


def waiting_here(environment: Mapping[str, str]) -> str:
    """In a few words, how waiting threads of a process with this environment go about it."""
    if chosen := _user_settings(environment):
        return f"as {' '.join(f'{name}={value}' for name, value in chosen.items())} says"
    if run_queue_wait_ns() is None:
        return "spin as long as the OpenMP runtime lets them: this system does not say what else wants the cores"
    return "spin, and sleep soon while other programs want the cores"


def spin_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment so that a watch can do its best; nothing where the user has chosen.

    Args:
        environment: variables, as in `os.environ`.
    """
    return {} if _user_settings(environment) else SPIN_SETTINGS


def _user_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's own choice: what is set and is not what `spin_settings` gave."""
    values = {name: environment[name] for name in SPIN_SETTINGS if environment.get(name)}
    return {} if values == SPIN_SETTINGS else values


def end_own_team() -> None:
    """End the OpenMP threads that the calling thread has started; its next product starts them anew.

    A process whose threads have a team each has more OpenMP threads than cores, for which the runtime has the short
    bound. So a thread that has computed, and from now on leaves it to another one, ends its team before.
    """
    openmp = loaded_openmp() if LOADED_FILES.exists() else None
    if openmp is not None and hasattr(openmp, "omp_pause_resource_all"):
        openmp.omp_pause_resource_all(OMP_PAUSE_HARD)


OMP_PAUSE_HARD = 2
"""Of `omp_pause_resource_t` in OpenMP 5.0."""


class ShortSpin:
    """While held, GNU's OpenMP threads of this process sleep after a short spin, whoever started them."""

    def __init__(self, openmp: ctypes.CDLL, threads: int) -> None:
        self._openmp, self._threads = openmp, threads
        self._released = threading.Event()
        self._holder = threading.Thread(target=self._hold, name="tutelage-sleep-soon", daemon=True)
        self._holder.start()

    def _hold(self) -> None:
        # A team belongs to the thread that started it, lives on when its work is done, and ends with that thread.
        # The work is a function of the runtime's own that changes nothing, as Python must not run in such threads.
        nothing = ctypes.cast(self._openmp.omp_get_level, ctypes.c_void_p)
        self._openmp.GOMP_parallel(nothing, None, ctypes.c_uint(self._threads), ctypes.c_uint(0))
        self._released.wait()

    def end(self) -> None:
        """Let the threads spin again as they did."""
        self._released.set()
        self._holder.join()


class Watch:
    """Looks how long the threads of this process stand in line for a core, and has them sleep soon while it is long.

    Attributes:
        crowded_seconds: for how long other programs have wanted the cores so far.
    """

    def __init__(self, openmp: ctypes.CDLL) -> None:
        self.crowded_seconds = 0.0
        self._openmp = openmp
        self._sleep_soon: ShortSpin | None = None
        threading.Thread(target=self._poll, name="tutelage-watch", daemon=True).start()

    def _poll(self) -> None:
        previous_waits, previous_time = run_queue_wait_ns() or {}, time.monotonic()
        while True:
            time.sleep(POLL_SECONDS)
            waits, current_time = run_queue_wait_ns() or {}, time.monotonic()
            waited_ns = sum(wait - previous_waits.get(thread, 0) for thread, wait in waits.items())
            self.adjust(waited_ns / 1e9 / (current_time - previous_time), current_time - previous_time)
            previous_waits, previous_time = waits, current_time

    def adjust(self, share: float, seconds: float) -> None:
        """Go by what was seen in the last `seconds`: threads stood in line for `share` of a core's time."""
        if self._sleep_soon is not None:
            self.crowded_seconds += seconds
            if share < FREE_SHARE:
                self._sleep_soon.end()
                self._sleep_soon = None
        elif share > CROWDED_SHARE and (threads := idle_team_threads()) is not None:
            self._sleep_soon = ShortSpin(self._openmp, threads)


def idle_team_threads() -> int | None:
    """Threads of a team with which the process has more of them than the cores it may use; None where that is many."""
    import torch

    threads = max(2, len(os.sched_getaffinity(0)) - torch.get_num_threads() + 2)
    return threads if threads <= MAX_IDLE_THREADS else None


def run_queue_wait_ns() -> dict[int, int] | None:
    """Nanoseconds that each thread of this process has stood in line for a core; None where the system does not say."""
    if not OWN_SCHEDULE.exists():
        return None
    waits = {}
    for thread in THREADS.iterdir():
        try:
            waits[int(thread.name)] = int((thread / "schedstat").read_text("ascii").split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return waits


@cache
def start_contention_watch() -> Watch | None:
    """Look on from now on, once in a process; None where the user has chosen or there is nothing to go by or to do."""
    if _user_settings(os.environ) or run_queue_wait_ns() is None:
        return None
    openmp = loaded_openmp()
    return None if openmp is None else Watch(openmp)


def loaded_openmp() -> ctypes.CDLL | None:
    """GNU's OpenMP runtime, if this process has loaded it, as torch does; another one has other bounds."""
    for line in LOADED_FILES.read_text("utf-8", "surrogateescape").splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith("libgomp"):
            return ctypes.CDLL(path)
    return None
