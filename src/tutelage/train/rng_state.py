"""The state of torch's random numbers, as tensors: what dropout draws after a resume, or when a step is taken back."""

from __future__ import annotations

import torch

PREFIX = "random:"


def rng_state() -> dict[str, torch.Tensor]:
    """The states of the processor and, where there is one, of the CUDA device."""
    state = {f"{PREFIX}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"{PREFIX}cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(tensors: dict[str, torch.Tensor]) -> None:
    """Take the states out of `tensors` and set them; a device that is not here, or was not there, is left as it is."""
    states = {name.removeprefix(PREFIX): tensors.pop(name) for name in [*tensors] if name.startswith(PREFIX)}
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
