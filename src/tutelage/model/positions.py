"""How far a model's positions reach: what its configuration states, and whether it computes anything beyond, tried.

Learned positions end with their table; rotary ones go on, untrained. One layer of the model is tried on weights that
take no memory, so this can be known before any are read.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.layers import cut_layers, decoder_of
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.output_head import accepted_arguments
from tutelage.model.refusals import REFUSALS

TRIED_TOKENS = 8
RESERVED_POSITIONS = 4
"""Entries of a table of positions that no token has, at most: RoBERTa's first two, and the one of padding."""


def stated_positions(config: Any) -> int | None:
    """How many positions a configuration states; None where it states none."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return stated if type(stated) is int and stated > 0 else None


def may_exceed_positions(stated: int | None, tokens: int) -> bool:
    """Whether so many tokens may be more than a model computes that states so many positions."""
    return stated is not None and tokens > stated - RESERVED_POSITIONS


def position_limit(config: Any, *, trust_remote_code: bool = False) -> int | None:
    """The most tokens that a model of this configuration computes; None where it goes beyond what it states.

    None, too, where it cannot be tried. Nothing is computed where no tensor of the layer is as long as the positions:
    there is no table then that could end, and a pass over all positions of a long context takes minutes.

    Args:
        config: of a causal language model, `model.configuration.causal_configuration`.
        trust_remote_code: let the model's own Python code run.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    stated = stated_positions(config)
    if stated is None:
        return None
    try:
        decoder = _one_layer_decoder(config, trust_remote_code=trust_remote_code)
    except (*REFUSALS, ImportError) as error:
        if is_out_of_memory(error):
            raise
        return None
    if not _has_position_table(decoder, stated):
        return None
    if not _computes(decoder, TRIED_TOKENS) or _computes(decoder, stated + 1):
        return None
    return next(
        (tokens for tokens in range(stated, stated - RESERVED_POSITIONS - 1, -1) if _computes(decoder, tokens)), None
    )


def _one_layer_decoder(config: Any, *, trust_remote_code: bool) -> Any:
    """The decoder with its first layer and zeros for weights, each tensor one number that stands for all."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    cut_layers(model, 1)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(_zeros(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _zeros(buffer)
    return decoder_of(model).eval()


def _has_position_table(decoder: Any, stated: int) -> bool:
    """Whether a tensor that is not the embeddings of ids has an entry for each position that is stated."""
    embeddings = decoder.get_input_embeddings().weight
    tensors = [
        parameter
        for module in decoder.modules()
        for parameter in (*module._parameters.values(), *vars(module).values())
    ]
    tensors += [buffer for module in decoder.modules() for buffer in module._buffers.values()]
    return any(
        stated <= length <= stated + RESERVED_POSITIONS
        for tensor in tensors
        if isinstance(tensor, torch.Tensor) and tensor is not embeddings
        for length in tensor.shape
    )


def _zeros(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros((), dtype=like.dtype).expand(like.shape)


@torch.inference_mode()
def _computes(decoder: Any, tokens: int) -> bool:
    ids_1T = torch.full((1, tokens), 5)
    try:
        decoder(input_ids=ids_1T, **accepted_arguments(decoder, {"use_cache": False}))
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return False
    return True
