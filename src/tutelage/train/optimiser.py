"""The optimizers a run can choose, each a function that says how master weights are stepped.

Source: AdamW, Loshchilov and Hutter 2019, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tutelage.train.masters import Build


def adamw(*, weight_decay: float, betas: tuple[float, float], epsilon: float) -> Build:
    """AdamW, fused: one pass over memory for each group.

    Args:
        weight_decay: decoupled decay; vectors (norms, biases) are exempt.
        betas: decay rates of the two moments.
        epsilon: added to the root of the second moment.
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        groups = decay_groups(masters, weight_decay)
        return (torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=epsilon, fused=True),)

    return build


def decay_groups(masters: Mapping[str, torch.Tensor], weight_decay: float) -> list[dict[str, object]]:
    """Two parameter groups: matrices, which decay, and vectors (norms, biases), which do not."""
    decayed = [one for one in masters.values() if one.ndim >= 2]
    exempt = [one for one in masters.values() if one.ndim < 2]
    return [
        {"params": group, "weight_decay": decay} for group, decay in ((decayed, weight_decay), (exempt, 0.0)) if group
    ]
