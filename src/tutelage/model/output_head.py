"""How a model turns hidden states into logits: a plain product that is rebuilt here, or the model's own way.

Whether the product is right is tried (`model.architecture`), never taken from a name.

Shape legend: D = hidden width, V = vocabulary, C = positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tutelage.errors import ConfigError
from tutelage.model.layers import decoder_of

HeadKind = Literal["product", "own", "whole"]
"""Who makes logits: `Head`; the end of the model's own forward, given hidden states (`forward_logits`); or nothing but
the model's whole forward from ids to logits."""


@dataclass(frozen=True, slots=True)
class Head:
    """How a model turns hidden states into logits: `cap * tanh((h W^T + bias) * scale / cap)`."""

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None
    scale: float
    cap: float | None


def head_of(model: Any) -> Head:
    """Read the output head of a transformers causal language model, with or without PEFT around it.

    What else a model does to its logits is not read here: `model.architecture` compares the two.

    Raises:
        ConfigError: the head is itself adapted, which the chunked loss would ignore.
    """
    layer = model.get_output_embeddings()
    if type(layer) is not torch.nn.Linear:
        raise ConfigError(
            "The output head cannot be adapted",
            where="lora.target_modules",
            found=type(layer).__name__,
            expected="a plain linear output head",
            fix='leave lm_head out of lora.target_modules, or use "all-linear"',
        )
    settings = model.config.get_text_config()
    scale = 1.0
    if (multiplier := getattr(settings, "logit_scale", None)) is not None:  # Cohere
        scale *= float(multiplier)
    if (divisor := getattr(settings, "logits_scaling", None)) is not None:  # Granite
        scale /= float(divisor)
    cap = getattr(settings, "final_logit_softcapping", None)  # Gemma 2
    return Head(layer.weight, layer.bias, scale, cap)


Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(hidden_CD, weight_VD) -> [C, V]."""


def plain_product(hidden_CD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
    """[C, V]."""
    return hidden_CD @ weight_VD.T


def product_logits(head: Head, hidden_CD: torch.Tensor, product: Product = plain_product) -> torch.Tensor:
    """[C, V] in fp32, as the chunked loss computes them, rounding of the product included."""
    logits_CV = product(hidden_CD, head.weight_VD).float()
    if head.bias_V is not None:
        logits_CV = logits_CV + head.bias_V.float()
    if head.scale != 1.0:
        logits_CV = logits_CV * head.scale
    return logits_CV if head.cap is None else head.cap * torch.tanh(logits_CV / head.cap)


def forward_logits(model: Any, hidden_CD: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
    """[C, V]: what the model's own forward makes of hidden states, with their graph.

    The decoder runs over one token, whose hidden states are then exchanged for these.

    Args:
        model: the causal language model itself, without PEFT around it.
        hidden_CD: as the decoder gives them.
        arguments: what else the decoder must be given for one token.
    """

    def exchanged(_decoder: Any, _given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return hidden_CD[None], *output[1:]
        output["last_hidden_state"] = hidden_CD[None]
        return output

    handle = decoder_of(model).register_forward_hook(exchanged)
    try:
        ids_11 = torch.zeros(1, 1, dtype=torch.long, device=hidden_CD.device)
        logits: torch.Tensor = model(input_ids=ids_11, **arguments).logits[0]
    finally:
        handle.remove()
    return logits


def accepted_arguments(module: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of `arguments` that a module's forward takes."""
    parameters = inspect.signature(module.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}
