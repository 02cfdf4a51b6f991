"""Loads a causal language model in the precision it will compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from tutelage.errors import DataError, DependencyError, cause_of
from tutelage.model.machine import cpu_multiplies_bf16
from tutelage.model.quantise import keep_quantised, parameter_count, stored_bytes

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: parameter count, bytes of the weights, and the device."""

    parameters: int
    weight_bytes: int
    device: str


def load(
    folder: Path, *, trust_remote_code: bool = False, onto: str | None = None, quantisation: Any = None
) -> tuple[Any, Loaded]:
    """Load the model in `folder` in the precision its weights are stored in, from safetensors only.

    Args:
        folder: configuration and safetensors.
        trust_remote_code: the folder's own Python code may run.
        onto: where its weights go; None takes what `device_here` says.
        quantisation: what `model.quantise.four_bit` gave; None leaves the weights as they are.

    Raises:
        DataError: the folder holds no model that transformers reads.
        DependencyError: a package that this model needs is missing.
    """
    from transformers import AutoModelForCausalLM

    device = onto or device_here()
    named = {
        "dtype": "auto",
        "use_safetensors": True,
        "trust_remote_code": trust_remote_code,
        "local_files_only": True,
        "quantization_config": quantisation,
    }
    try:
        with no_progress_bars():
            try:
                model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **named)
            except ValueError:  # some kinds have no such attention, which transformers says before it reads weights
                model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **named)
    except ImportError as error:
        raise DependencyError("This model needs another package", where=str(folder), found=str(error)) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            "The model cannot be loaded",
            where=str(folder),
            found=cause_of(error),
            expected="config.json of a causal language model, with its safetensors",
            fix="check the folder; a model with its own code needs model.trust_remote_code = true",
        ) from error
    if quantisation is None:
        model.to(device)
    else:  # transformers has put it on the device, where it was quantised
        keep_quantised(model)
    parameters = sum(parameter_count(one) for one in model.parameters())
    weight_bytes = sum(stored_bytes(one) for one in model.parameters())
    return model, Loaded(parameters, weight_bytes, device)


def device_here() -> Literal["cpu", "cuda"]:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars over ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def settled_precision(asked: Literal["auto", "fp32", "bf16"]) -> Precision:
    """The precision asked for; for "auto", bf16 where this machine's hardware multiplies it, else fp32."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_multiplies_bf16() else "fp32"


def compute_in(model: torch.nn.Module, precision: Precision) -> None:
    """Cast every parameter; buffers stay as they are, as rotary frequencies lose their meaning in bf16.

    Weights in 4 bits stay, too: they are whole numbers, and are widened to `precision` for each product.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(DTYPES[precision])
