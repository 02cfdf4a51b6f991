"""How the rows of a run are packed where its settings leave it to the device. Nothing that is learned depends on it."""

from __future__ import annotations

from tutelage.config import Settings
from tutelage.model.load import device_here

ROW_TOKENS = {"cpu": 1024, "cuda": 4096}
"""On a CPU rows of 2,048 tokens were a twentieth faster and took 0.8 GB more (docs/log.md, "Another allocator"). A GPU
wants longer ones to be kept busy; 4,096 is not measured."""


def row_tokens_here(settings: Settings) -> int:
    """Most tokens in a packed row: as asked, or as the device computes well; a longest example fits in any case."""
    asked = settings.pack.row_tokens
    return max(settings.pack.max_tokens, ROW_TOKENS[device_here()]) if asked is None else asked


def shares_prefixes_here(settings: Settings) -> bool:
    """Whether beginnings that documents share are computed once: as asked, or on a CPU.

    A GPU computes a row of plain documents in one call of flash attention for each layer, and a row with shared
    beginnings document by document: far slower than what is saved where beginnings are short.
    """
    asked = settings.pack.share_prefixes
    return device_here() == "cpu" if asked is None else asked


def trains_on_shared_prefixes(settings: Settings) -> bool:
    """The same in training, where what documents share gets one draw of noise: with noise, then, none is shared."""
    return shares_prefixes_here(settings) and not draws_noise(settings)


def draws_noise(settings: Settings) -> bool:
    """Whether a training step draws random numbers."""
    train = settings.train
    return settings.lora.dropout > 0 or train.residual_dropout > 0 or train.neftune_alpha is not None
