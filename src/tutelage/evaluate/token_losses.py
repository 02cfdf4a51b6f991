"""The losses of single tokens, kept as a packed row's loss is computed, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tutelage.types import Address, PackedSequence


class TokenLosses:
    """Stands where token weights do (`model.token_weights.WeighsTokens`), keeps what it is handed, and weighs nothing.

    So the loss is summed as without it, to the bit, on every path that a loss takes.
    """

    def __init__(self) -> None:
        self._chunks: list[torch.Tensor] = []

    def of(self, loss_C: torch.Tensor, probabilities_CV: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 the protocol's
        """Keep the losses of the next chunk of a row; every token counts as it did."""
        self._chunks.append(loss_C.detach())
        return torch.ones_like(loss_C)

    def by_document(self, row: PackedSequence) -> Iterator[tuple[Address, tuple[float, int]]]:
        """For each document of the row the address, and its summed weighted loss and trained tokens, if it has any.

        Args:
            row: whose loss was computed with this.
        """
        targets = np.flatnonzero(row.weights)
        if not len(targets):
            return
        losses_N = torch.cat(self._chunks).double().cpu().numpy() * row.weights[targets].astype(np.float64)
        stretches_N = np.repeat(np.arange(len(row.document_tokens)), row.document_tokens)[targets]
        continued = set(row.parents)  # a beginning that documents share has no address, and trains nothing
        documents = (stretch for stretch in range(len(row.document_tokens)) if stretch not in continued)
        for stretch, address in zip(documents, row.addresses, strict=True):
            own = stretches_N == stretch
            if own.any():
                yield address, (float(losses_N[own].sum()), int(own.sum()))
