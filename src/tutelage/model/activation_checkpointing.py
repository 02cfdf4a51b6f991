"""Activation checkpointing: a decoder layer keeps its input alone, and backward computes the rest again.

Source: Chen et al. 2016 (Training Deep Nets with Sublinear Memory Cost), section 4.
"""

from __future__ import annotations

from typing import Any, Literal

from tutelage.errors import ConfigError

RECOMPUTE_ABOVE_TOKENS = 4096
"""Rows with room for more tokens are computed again by default: what a layer holds of one, 34 bytes for each token and
hidden unit, then outweighs its bf16 weights, 24 bytes a squared hidden unit, in models up to 5,800 units wide.
Source: Korthikanti et al. 2022 (Reducing Activation Recomputation), section 4.1."""


def recomputes(setting: Literal["auto", "on", "off"], *, row_tokens: int) -> bool:
    """Whether activations are computed again: as asked, or for "auto" where rows may be long."""
    return setting == "on" or (setting == "auto" and row_tokens > RECOMPUTE_ABOVE_TOKENS)


def recompute_activations(model: Any) -> None:
    """Make every decoder layer of `model` keep only its input while it trains; loss and gradients stay the same bits.

    Random numbers (dropout) are drawn again from the same state.

    Raises:
        ConfigError: this model cannot.
    """
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            "This model cannot compute its activations again",
            where="train.activation_checkpointing",
            found=str(error),
            fix='set train.activation_checkpointing = "off", and pack.row_tokens lower',
        ) from error
