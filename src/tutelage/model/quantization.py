"""Weights in 4 bits (NF4, through bitsandbytes) under an adapter: QLoRA, Dettmers et al. 2023, section 3.

The linear layers inside the decoder are quantized; embeddings, norms and the output head keep their precision.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from tutelage.errors import ConfigError, DependencyError
from tutelage.model.linear_weights import layer_matrices, of_any_layer

INSTALL = "pip install 'tutelage[qlora]'"
SMALL_SHARE = 0.5
"""Of the weights that multiply inside layers. Our choice: with less, most of what qlora is chosen for is not had."""
REPACKS = "support_avx512bf16_for_cpu"
"""What `bitsandbytes.nn.Linear4bit` asks before it repacks its weights (0.50)."""


def require_bitsandbytes() -> None:
    """Fail early, before data is prepared for a model that cannot be loaded.

    Raises:
        DependencyError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DependencyError(
            'model.method = "qlora" needs the package bitsandbytes, which makes weights of 4 bits',
            where="model.method",
            fix=INSTALL,
        )


def four_bit(*, cast_model: torch.dtype, double_quantization: bool) -> Any:
    """How transformers is asked for NF4 weights.

    Args:
        cast_model: what a weight is widened to for each product.
        double_quantization: quantize the scales of the blocks of 64 weights too.

    Raises:
        DependencyError: bitsandbytes is not installed.
    """
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quantization,
        bnb_4bit_compute_dtype=cast_model,
    )


def keep_quantized(model: Any) -> int:
    """Let no layer of 4 bits repack its weights when it is first evaluated; return how many would have.

    On processors with AVX512-BF16 bitsandbytes does so to generate faster. What it repacks multiplies in bf16 whatever
    was asked for, rounds the scales, and has no backward pass: whoever measures a model before training would train
    without the gradients of its base.

    Args:
        model: as transformers quantized it, or not at all.
    """
    repacking = [module for module in model.modules() if getattr(module, REPACKS, False)]
    for layer in repacking:
        setattr(layer, REPACKS, False)
    return len(repacking)


def quantized_count(model: torch.nn.Module) -> int:
    """How many of a model's weights are in 4 bits."""
    return sum(parameter_count(parameter) for parameter in model.parameters() if not parameter.is_floating_point())


def check_quantized_share(model: Any) -> tuple[str, ...]:
    """Look at what became 4 bits where that was asked for; a question where it is less than half of what multiplies.

    Args:
        model: as transformers quantized it.

    Raises:
        ConfigError: nothing did.
    """
    matrices = dict(layer_matrices(model))
    unquantized = {name: parameter_count(matrix) for name, matrix in matrices.items() if matrix.is_floating_point()}
    total = sum(map(parameter_count, matrices.values()))
    share = 1 - sum(unquantized.values()) / total if total else 0.0
    names = ", ".join(sorted({of_any_layer(name) for name in unquantized}))
    if share == 0.0:
        raise ConfigError(
            "Nothing of this model came into 4 bits, as bitsandbytes takes linear layers alone",
            where="model.method",
            found=f"whole: {names}" if names else "no weights that multiply",
            expected="linear layers inside the decoder",
            fix='set model.method = "lora"',
        )
    if share >= SMALL_SHARE:
        return ()
    experts = any(matrices[name].ndim > 2 for name in unquantized)
    why = " (experts are parameters of three dimensions, and bitsandbytes takes linear layers)" if experts else ""
    return (
        f"Is this meant? model.method is qlora, and {share:.1%} of the weights that multiply in its layers are in 4 "
        f"bits; whole stay {names}{why}",
    )


def parameter_count(parameter: torch.Tensor) -> int:
    """Weights in a parameter; two of them share a byte in 4 bits."""
    state = _quantization_of(parameter)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def stored_bytes(parameter: torch.Tensor) -> int:
    """Bytes of a parameter in memory, the scales of a quantized one included."""
    state = _quantization_of(parameter)
    size = parameter.numel() * parameter.element_size()
    if state is None:
        return size
    components = state.as_dict(packed=False)
    return size + sum(
        component.numel() * component.element_size()
        for component in components.values()
        if isinstance(component, torch.Tensor)
    )


def _quantization_of(parameter: torch.Tensor) -> Any:
    """How a parameter was quantized; None for an ordinary one."""
    if parameter.is_floating_point():
        return None
    from bitsandbytes.nn import Params4bit

    return parameter.quant_state if isinstance(parameter, Params4bit) else None


def dequantized_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the layers in 4 bits by the layer's name, [out, in] in fp32 and main memory: what they stand for.

    Args:
        model: as transformers quantized it, without an adapter.
    """
    from bitsandbytes.functional import dequantize_4bit

    return {
        name: dequantize_4bit(module.weight.data, module.weight.quant_state).to("cpu", torch.float32)
        for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), torch.Tensor) and _quantization_of(weight) is not None
    }
