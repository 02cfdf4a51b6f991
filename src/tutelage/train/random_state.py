"""The state of torch's random numbers, as tensors of a checkpoint: what dropout and noise draw after a resume."""

from __future__ import annotations

import torch

from tutelage.model.ranks import Ranks

PREFIX = "random:"


def random_state(ranks: Ranks) -> dict[str, torch.Tensor]:
    """States of this process, by names that no other process uses."""
    end = "" if ranks.size == 1 else f":{ranks.rank}"
    state = {f"{PREFIX}cpu{end}": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"{PREFIX}cuda{end}"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(tensors: dict[str, torch.Tensor], ranks: Ranks) -> None:
    """Take the states out of `tensors` and set this process's; with more processes than were saved, some share one.

    A device that is not here, or was not there, is left as it is.
    """
    states = {name.removeprefix(PREFIX): tensors.pop(name) for name in [*tensors] if name.startswith(PREFIX)}
    if (cpu := _of_this_process(states, "cpu", ranks)) is not None:
        torch.set_rng_state(cpu)
    if (cuda := _of_this_process(states, "cuda", ranks)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)


def _of_this_process(states: dict[str, torch.Tensor], device: str, ranks: Ranks) -> torch.Tensor | None:
    saved = [name for name in states if name.split(":")[0] == device]
    by_rank = sorted(saved, key=lambda name: int(name.partition(":")[2] or 0))
    return states[by_rank[ranks.rank % len(by_rank)]] if by_rank else None
