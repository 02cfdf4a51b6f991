"""A pull of the trained weights towards those that the model started from, beside the gradient: L2-SP.

Source: Li, Grandvalet and Davoine 2018 (Explicit Inductive Bias for Transfer Learning, arXiv 1802.01483), section 3:
the penalty strength / 2 |w - w0|^2. Here it is decoupled, as AdamW's weight decay is (Loshchilov and Hutter 2019,
section 3): its gradient goes into the weights by the learning rate alone, past moments and clipping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.distributed.tensor import DTensor

from tutelage.model.adapters.pairs import AdapterPair

PART_NUMBERS = 1 << 20
"""Weights whose difference from the start exists at once: 4 MiB in fp32."""


class PullToBase:
    """Before each step: w <- w - lr strength (w - w0); a low-rank pair is pulled by what it adds to its weight.

    For a pair that is the gradient of strength / 2 |s B A|^2: B <- B - lr strength s^2 B (A A^T), and A <- A - lr
    strength s^2 (B^T B) A, both from the values before. The base needs no copy there, as the pair starts at nothing.

    Args:
        masters: fp32 master weights by name, as they start.
        strength: of the penalty, above 0.
        stored_as: the precision of the checkpoint: starts that are numbers of it are kept in it, others in fp32.
        pairs: those of an adapter; the other masters have a copy of their start.
    """

    def __init__(
        self,
        masters: Mapping[str, torch.Tensor],
        *,
        strength: float,
        stored_as: torch.dtype,
        pairs: Sequence[AdapterPair] = (),
    ) -> None:
        self.strength, self.pairs = strength, tuple(pairs)
        paired = {name for pair in pairs for name in (pair.first, pair.second)}
        self.starts = {
            name: _kept_start(_local(master), stored_as) for name, master in masters.items() if name not in paired
        }

    @property
    def nbytes(self) -> int:
        """What the starts take in memory, on this process."""
        return sum(start.nbytes for start in self.starts.values())

    @torch.no_grad()
    def apply(self, masters: Mapping[str, torch.Tensor], learning_rate: float) -> None:
        """Pull the masters, once a step."""
        share = learning_rate * self.strength
        for name, start in self.starts.items():
            master = torch.atleast_1d(_local(masters[name]))
            rows = max(1, PART_NUMBERS * len(master) // max(1, master.numel()))
            for part, start_part in zip(master.split(rows), torch.atleast_1d(start).split(rows), strict=True):
                part.sub_(part - start_part, alpha=share)
        for pair in self.pairs:
            _shrink(masters[pair.first], masters[pair.second], share * pair.scale**2, pair.experts)


def _shrink(first: torch.Tensor, second: torch.Tensor, share: float, experts: int) -> None:
    """Shape legend: E = experts, K = rank, I = inputs, O = outputs."""
    first_EKI = first.reshape(experts, -1, first.shape[1])
    second_EOK = second.reshape(second.shape[0], -1, experts).permute(2, 0, 1)
    pull_EKI = (second_EOK.mT @ second_EOK) @ first_EKI
    pull_EOK = second_EOK @ (first_EKI @ first_EKI.mT)
    first.sub_(pull_EKI.reshape(first.shape), alpha=share)
    second.sub_(pull_EOK.permute(1, 2, 0).reshape(second.shape), alpha=share)


def _kept_start(master: torch.Tensor, stored_as: torch.dtype) -> torch.Tensor:
    narrow = master.detach().to(stored_as, copy=True)
    return narrow if torch.equal(narrow.to(master.dtype), master) else master.detach().clone()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The shard of this process, in the memory that the whole has here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
