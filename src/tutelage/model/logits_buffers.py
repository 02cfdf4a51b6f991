"""The logits of one chunk after another, in the same memory, from hidden states and a plain output head.

Shape legend: D = hidden width, V = vocabulary, C = one chunk of positions.
"""

from __future__ import annotations

import torch

from tutelage.model.output_head import Head


class LogitsBuffers:
    """Where one chunk after the other has its logits: fresh memory for each would cost as much as filling it.

    Args:
        hidden_ND: of all chunks.
        weight_VD: of the head.
        positions: most of a chunk.
    """

    def __init__(self, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, positions: int) -> None:
        shape = min(positions, len(hidden_ND)), len(weight_VD)
        self._narrow_CV = hidden_ND.new_empty(shape)
        wide = hidden_ND.dtype == torch.float32
        self._wide_CV = self._narrow_CV if wide else hidden_ND.new_empty(shape, dtype=torch.float32)

    def logits(self, head: Head, hidden_CD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
        """[C, V] in fp32, valid until the next chunk."""
        product_CV = torch.mm(hidden_CD, weight_VD.T, out=self._narrow_CV[: len(hidden_CD)])
        logits_CV = self._wide_CV[: len(hidden_CD)]
        if logits_CV.dtype != product_CV.dtype:
            logits_CV.copy_(product_CV)
        if head.bias_V is not None:
            logits_CV += head.bias_V.float()
        if head.scale != 1.0:
            logits_CV *= head.scale
        if head.cap is not None:
            logits_CV.div_(head.cap).tanh_().mul_(head.cap)
        return logits_CV

    def narrowed(self, gradient_CV: torch.Tensor) -> torch.Tensor:
        """The same in the dtype of products, where those of the logits were."""
        narrow_CV = self._narrow_CV[: len(gradient_CV)]
        return gradient_CV if narrow_CV.dtype == gradient_CV.dtype else narrow_CV.copy_(gradient_CV)


def cap_slope(head: Head, logits_CV: torch.Tensor) -> torch.Tensor | None:
    """The slope of the cap at capped logits, [C, V]; None without a cap."""
    return None if head.cap is None else 1.0 - (logits_CV / head.cap) ** 2
