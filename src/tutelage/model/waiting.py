"""How long a thread of OpenMP spins for the others before it sleeps: on a machine that others use too, not for long.

torch's products run on OpenMP threads that meet at a barrier many times a layer. libgomp lets a thread that came first
spin for some milliseconds, which costs nothing where each has a core. Beside other work the thread it waits for may
have no core, and then the spinning keeps the core from it: training fell to a fortieth. It reads its bound before the
first parallel region, so the program must start with it. Source: docs/log.md, "Beside other work".
"""

from __future__ import annotations

from collections.abc import Mapping

SPIN_COUNT = "GOMP_SPINCOUNT"
"""libgomp's variable: how often a waiting thread looks before it sleeps."""
POLICY = "OMP_WAIT_POLICY"
CHOSEN_BY = (SPIN_COUNT, POLICY)
"""Variables by which a user has chosen already."""
SPINS = 3000
"""About 0.1 to 0.2 ms: longer than threads that all have a core usually wait for each other."""


def waiting_here(environment: Mapping[str, str]) -> str:
    """In a few words, what a waiting thread of a process with this environment does."""
    if policy := environment.get(POLICY):
        return f"{POLICY}={policy}"
    if spins := environment.get(SPIN_COUNT):
        return f"spins {spins} times, then sleeps"
    return "spins as long as the OpenMP runtime lets it"


def bounded_waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment so that waiting threads sleep soon; nothing where the user has chosen.

    Args:
        environment: variables, as in `os.environ`.
    """
    return {} if any(environment.get(name) for name in CHOSEN_BY) else {SPIN_COUNT: str(SPINS)}
