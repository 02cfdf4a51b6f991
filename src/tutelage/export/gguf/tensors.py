"""The tensors of a GGUF file from those of a Hugging Face folder: names, order of rows, offsets, RoPE factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, TENSOR_NAMES, TensorNameMap, get_tensor_name_map
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.export.gguf.family import SAFETENSORS_STAY, Family, head_width, rope_parameters
from tutelage.export.gguf.stored_tensors import StoredTensors

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file to be.

    Attributes:
        name: in GGUF.
        source: in the folder; empty for what is made of settings.
        shape: as torch has it.
        load: gives it in fp32.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    load: Callable[[], NDArray[np.float32]]


def name_map(family: Family, layers: int) -> TensorNameMap:
    """The `gguf` package's own table of names for this architecture."""
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    return get_tensor_name_map(MODEL_ARCH(architecture), layers)


def is_tied(config: Any) -> bool:
    """The embedding is the head, too."""
    return bool(config.tie_word_embeddings)


def model_tensors(stored: StoredTensors, config: Any, family: Family, where: str) -> list[Tensor]:
    """All tensors that the file gets.

    Args:
        stored: of the folder.
        config: of the folder, as transformers reads it.
        family: of the model.
        where: the folder, for errors.

    Raises:
        DataError: a tensor has no name in GGUF, or one is missing.
    """
    names = name_map(family, config.num_hidden_layers)
    written = [_rope_tensor(*entry) for entry in _rope_factors(config, family)]
    for source, shape in stored.shapes.items():
        if source == HEAD and is_tied(config):  # transformers does not read it, either
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None or (source == HEAD and family.tied_only):
            raise DataError(
                "A tensor of the model has no place in GGUF",
                where=f"{where}: {source}",
                found=f"shape {list(shape)}",
                expected=f"the tensors of a plain {family.model_type}",
                fix=SAFETENSORS_STAY,
            )
        written.append(Tensor(name, source, shape, partial(_loaded, stored, source, config, family)))
    if HEAD not in stored.shapes and not is_tied(config):
        raise DataError(
            "The model has no head",
            where=f"{where}: {HEAD}",
            expected="its own head, or tie_word_embeddings = true in config.json",
            fix="export the run again: tutelage export RUN --to hf",
        )
    return written


def row_transform(source: str, config: Any, family: Family) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What changes the rows of a projection for llama.cpp; None where they stay.

    Of a LoRA pair it changes the second matrix alone, whose rows are those of the projection.
    """
    projection = source.split(".")[-2]
    if projection not in family.permuted:
        return None
    heads = config.num_attention_heads if projection == "q_proj" else config.num_key_value_heads
    return partial(paired_rows, heads=heads)


def paired_rows(tensor: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Bring the two numbers that one rotation turns side by side.

    transformers turns channel i of a head with channel i + width / 2; llama.cpp's architecture `llama` turns 2i with
    2i + 1.

    Args:
        tensor: (heads * width, ...).
        heads: how many heads the rows are of.
    """
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _loaded(stored: StoredTensors, source: str, config: Any, family: Family) -> NDArray[np.float32]:
    tensor = stored.load(source)
    if (transform := row_transform(source, config, family)) is not None:
        tensor = transform(tensor)
    if family.norm_offset and source.endswith("norm.weight"):
        tensor = tensor + family.norm_offset
    return tensor.contiguous().numpy()


def _rope_tensor(key: MODEL_TENSOR, values: list[float]) -> Tensor:
    array = np.asarray(values, dtype=np.float32)
    return Tensor(f"{TENSOR_NAMES[key]}.weight", "", array.shape, lambda: array)


def _rope_factors(config: Any, family: Family) -> list[tuple[MODEL_TENSOR, list[float]]]:
    """By what the frequencies of each rotation are divided, where the settings say more than one factor for all."""
    parameters = rope_parameters(config)
    kind = parameters.get("rope_type")
    if kind == "llama3" and family.architecture == "llama":
        return [(MODEL_TENSOR.ROPE_FREQS, _llama3_factors(parameters, head_width(config)))]
    if kind == "longrope":
        return [
            (MODEL_TENSOR.ROPE_FACTORS_LONG, [float(factor) for factor in parameters["long_factor"]]),
            (MODEL_TENSOR.ROPE_FACTORS_SHORT, [float(factor) for factor in parameters["short_factor"]]),
        ]
    return []


def _llama3_factors(parameters: dict[str, Any], width: int) -> list[float]:
    """Long waves are stretched, short ones stay, and those between are mixed.

    Source: Llama 3.1's scaling as `_compute_llama3_parameters` of transformers' modeling_rope_utils has it.
    """
    frequencies = 1.0 / (
        parameters.get("rope_theta", 10000.0) ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    )
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    original = parameters["original_max_position_embeddings"]
    factors = []
    for frequency in frequencies.tolist():
        wavelength = 2 * math.pi / frequency
        smooth = (original / wavelength - low) / (high - low)
        share = min(max(smooth, 0.0), 1.0)
        factors.append(1.0 / ((1.0 - share) / factor + share))
    return factors
