"""A model's decoder and the list of its layers: the one place that finds them."""

from __future__ import annotations

from typing import Any

import torch

from tutelage.errors import DataError


def decoder_of(model: Any) -> Any:
    """The part of a model that makes hidden states of ids.

    transformers' own answer is taken unless it is the model with its head (Llama 4) or a part of the head (ModernBERT):
    then the outermost model inside that has the embeddings of ids and no head.

    Args:
        model: a causal language model of transformers, with or without PEFT around it, or its decoder.
    """
    stated_decoder = model.get_decoder()
    if _is_headless(stated_decoder):
        return stated_decoder
    embeddings = model.get_input_embeddings()
    inside = (module for module in model.modules() if _is_headless(module) and _embeds_with(module, embeddings))
    return next(inside, stated_decoder)


def _is_headless(module: Any) -> bool:
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel) and module.get_output_embeddings() is None


def _embeds_with(module: Any, embeddings: Any) -> bool:
    try:
        return module.get_input_embeddings() is embeddings
    except NotImplementedError:  # as transformers says of one that it finds none in
        return False


def decoder_layers(model: Any) -> tuple[str, torch.nn.ModuleList]:
    """The longest list of modules that the decoder runs through, and its name inside the decoder, from dot to dot.

    `config.num_hidden_layers` decides between lists where one of them has that length.

    Args:
        model: a causal language model of transformers, with or without PEFT around it, or its decoder.

    Raises:
        DataError: there is no such list.
    """
    decoder = decoder_of(model)
    stated_layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        (name, module_list)
        for name, module_list in decoder.named_modules()
        if isinstance(module_list, torch.nn.ModuleList) and len(module_list)
    ]
    outermost = [
        (name, module_list)
        for name, module_list in lists
        if not any(name.startswith(f"{outer_name}.") for outer_name, _ in lists)
    ]
    candidates = [
        (name, module_list) for name, module_list in outermost if len(module_list) == stated_layers
    ] or outermost
    if not candidates:
        raise DataError(
            "This model does not keep its layers in a list",
            where=type(decoder).__name__,
            found="no list of layers",
            expected="a decoder that runs through a list of layers",
            fix="leave out what works on layers: processes, model.compile, train.residual_dropout, or the plan",
        )
    return max(candidates, key=lambda pair: sum(parameter.numel() for parameter in pair[1].parameters()))


def cut_layers(model: Any, count: int) -> None:
    """Leave the first `count` decoder layers of a model.

    Raises:
        DataError: it has no list of layers.
        AssertionError: it has fewer.
    """
    name, layers = decoder_layers(model)
    assert count <= len(layers), f"{count} layers asked for, {len(layers)} are here"
    parent, _, child_name = name.rpartition(".")
    setattr(decoder_of(model).get_submodule(parent), child_name, layers[:count])
