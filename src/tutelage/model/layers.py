"""The list of a model's decoder layers: the one place that finds it."""

from __future__ import annotations

from typing import Any

import torch

from tutelage.errors import DataError


def decoder_layers(model: Any) -> tuple[str, torch.nn.ModuleList]:
    """The longest list of modules that the decoder runs through, and its name inside the decoder, from dot to dot.

    `config.num_hidden_layers` decides between lists where one of them has that length.

    Args:
        model: a causal language model of transformers, with or without PEFT around it, or its decoder.

    Raises:
        DataError: there is no such list.
    """
    decoder = model.get_decoder()
    stated = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [(name, one) for name, one in decoder.named_modules() if isinstance(one, torch.nn.ModuleList) and len(one)]
    outer = [(name, one) for name, one in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    chosen = [(name, one) for name, one in outer if len(one) == stated] or outer
    if not chosen:
        raise DataError(
            "This model does not keep its layers in a list",
            where=type(decoder).__name__,
            found="no list of layers",
            expected="a decoder that runs through a list of layers",
            fix="leave out what works on layers: processes, model.compile, train.residual_dropout, or the plan",
        )
    return max(chosen, key=lambda pair: sum(one.numel() for one in pair[1].parameters()))


def cut_layers(model: Any, count: int) -> None:
    """Leave the first `count` decoder layers of a model.

    Raises:
        DataError: it has no list of layers.
        AssertionError: it has fewer.
    """
    name, layers = decoder_layers(model)
    assert count <= len(layers), f"{count} layers asked for, {len(layers)} are here"
    parent, _, last = name.rpartition(".")
    setattr(model.get_decoder().get_submodule(parent), last, layers[:count])
