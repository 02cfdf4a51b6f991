"""How the rows of a run are packed where its settings leave it to the device. Nothing that is learned depends on it."""

from __future__ import annotations

import numpy as np

from tutelage.builders.dataset import Prepared
from tutelage.config import Settings
from tutelage.model.attention.isolation_check import MaxLengths
from tutelage.model.load import device_here, resolve_precision

ROW_TOKENS = {("cpu", "fp32"): 1024, ("cpu", "bf16"): 2048, ("cuda", "fp32"): 4096, ("cuda", "bf16"): 4096}
"""On a CPU twice as many tokens were a twentieth faster in fp32, for 0.8 GB more (docs/log.md, "Another allocator"); in
bf16 a tenth, for 0.4 GB. A GPU wants longer ones to be kept busy; 4,096 is not measured."""


def row_tokens_here(settings: Settings) -> int:
    """Most tokens in a packed row: as asked, or as the device computes well; a longest example fits in any case."""
    if (requested := settings.pack.row_tokens) is not None:
        return requested
    return max(settings.pack.max_seq_length, ROW_TOKENS[device_here(), resolve_precision(settings.model.precision)])


def longest_rows(settings: Settings, prepared: Prepared) -> MaxLengths:
    """How long the rows of this run become at most: what fits in one, and no more than a step or the validation has."""
    virtual = settings.prompt.tokens if settings.model.method == "prompt" else 0
    train, validation = (
        np.asarray(examples.column("tokens")) + virtual for examples in (prepared.train, prepared.validation)
    )
    step = np.sort(train)[-settings.train.batch_size :]
    total_tokens = max(int(step.sum()), int(validation.sum()))
    return MaxLengths(
        row_tokens=min(row_tokens_here(settings), total_tokens),
        document_tokens=int(max(train.max(initial=1), validation.max(initial=1))),
    )


def shares_prefixes_here(settings: Settings) -> bool:
    """Whether beginnings that documents share are computed once: as asked, or on a CPU.

    A GPU computes a row of plain documents in one call of flash attention for each layer, and a row with shared
    beginnings document by document: far slower than what is saved where beginnings are short.
    """
    requested = settings.pack.share_prefixes
    return device_here() == "cpu" if requested is None else requested


def trains_on_shared_prefixes(settings: Settings) -> bool:
    """The same in training, where what documents share gets one draw of noise: with noise, then, none is shared."""
    return shares_prefixes_here(settings) and not draws_noise(settings)


def draws_noise(settings: Settings) -> bool:
    """Whether a training step draws random numbers."""
    train = settings.train
    return settings.lora.dropout > 0 or train.residual_dropout > 0 or train.neftune_alpha is not None
