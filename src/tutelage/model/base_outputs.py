"""What the base made of documents before training: its last hidden states there, and its output head, kept.

So the exact logits of the base are at hand while every weight is trained, without a second model in memory.

Shape legend: N = trained positions of a row, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import torch

from tutelage.model.output_head import Head
from tutelage.types import PackedSequence


@dataclass(frozen=True, slots=True)
class BaseOutputs:
    """Hidden states of the base by document, in main memory, and a copy of its output head, where it was.

    Attributes:
        head: of the base.
        hidden: [N, D] of each document, by what the document is.
    """

    head: Head
    hidden: dict[bytes, torch.Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        kept = [self.head.weight_VD, *([] if self.head.bias_V is None else [self.head.bias_V]), *self.hidden.values()]
        return sum(tensor.nbytes for tensor in kept)

    def keep(self, row: PackedSequence, hidden_ND: torch.Tensor) -> None:
        """Keep what the base made of a row.

        Args:
            row: of documents that share no beginning.
            hidden_ND: before each of its trained tokens, in their order.
        """
        first = 0
        for key, count in _documents(row):
            self.hidden.setdefault(key, hidden_ND[first : first + count].to("cpu", copy=True))
            first += count

    def of(self, row: PackedSequence) -> torch.Tensor:
        """What was kept of the documents of a row, [N, D], on the device of the head."""
        return torch.cat([self.hidden[key] for key, _ in _documents(row)]).to(self.head.weight_VD.device)


@dataclass(slots=True)
class DivergenceSum:
    """Summed weighted divergence of replayed rows, and the weights it is of, since it was last taken."""

    divergence: torch.Tensor | None = None
    weight: float = 0.0

    def add(self, divergence: torch.Tensor, weight: float) -> None:
        """That of one row: a scalar without gradient. It stays where it is: nothing waits for its device."""
        self.divergence = divergence if self.divergence is None else self.divergence + divergence
        self.weight += weight

    def take(self) -> tuple[float, float]:
        """Both, (0, 0) where nothing was added; afterwards it is empty."""
        taken = (0.0 if self.divergence is None else self.divergence.item()), self.weight
        self.divergence, self.weight = None, 0.0
        return taken


@dataclass(frozen=True, slots=True)
class HeldToBase:
    """How strongly a model is held to its base on replayed rows, and what is kept of the base where it changes itself.

    Attributes:
        strength: of the divergence beside the loss.
        outputs: of the base; None where the base is the model with its adapter switched off.
        measured: the divergence of the rows that were computed.
    """

    strength: float
    outputs: BaseOutputs | None = None
    measured: DivergenceSum = field(default_factory=DivergenceSum)


def kept_head(head: Head) -> Head:
    """A copy of the head as it is now."""
    bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
    return replace(head, weight_VD=head.weight_VD.detach().clone(), bias_V=bias_V)


def _documents(row: PackedSequence) -> Iterator[tuple[bytes, int]]:
    """What each document of a row is, and how many of its tokens are trained."""
    assert not row.parents, "documents that share a beginning are not in one piece"
    ends = np.cumsum(row.document_tokens)
    for start, end in zip(ends - row.document_tokens, ends, strict=True):
        weights = row.weights[start:end]
        yield blake2b(row.ids[start:end].tobytes() + weights.tobytes()).digest(), int(np.count_nonzero(weights))
