"""A model before it is loaded: exact counts of its parameters, from config.json alone, on torch's meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import DataError, DependencyError, cause_of
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.embedded import embedded_models
from tutelage.model.layers import cut_layers, decoder_layers
from tutelage.model.locate import Log, model_folder

CUT_LAYERS = 3
"""Layers of `ModelShape.cut`: what two and three layers need tells what each further one adds."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model is, without a byte of its weights.

    Attributes:
        name: what was asked for.
        kind: the model's class.
        parameters: all of them; a head tied to the embeddings counts once.
        linear_parameters: weights of linear layers but the output head: what 4-bit quantization shrinks.
        head_parameters: of the output head, or of the embeddings that it is tied to.
        layers: decoder layers.
        hidden_width: numbers per token between layers.
        vocabulary: rows of the output head.
        largest_linear: weights of the largest linear layer but the head.
        stored_bytes_per_parameter: as the checkpoint's config.json says; 4 where it says nothing.
        equal_layers: all layers have the same parameters, so that a few of them stand for all.
        cut: the model on torch's meta device, with `CUT_LAYERS` layers if those stand for all. Copy it to change it.
    """

    name: str
    kind: str
    parameters: int
    linear_parameters: int
    head_parameters: int
    layers: int
    hidden_width: int
    vocabulary: int
    largest_linear: int
    stored_bytes_per_parameter: int
    equal_layers: bool
    cut: Any

    @property
    def cut_layer_count(self) -> int:
        """How many layers `cut` has."""
        return min(self.layers, CUT_LAYERS) if self.equal_layers else self.layers

    def with_layers(self, count: int) -> Any:
        """A copy of the meta model with its first `count` layers.

        Raises:
            AssertionError: more than `cut` holds.
        """
        model = copy.deepcopy(self.cut)
        cut_layers(model, count)
        return model


def read_model_shape(name: str, *, trust_remote_code: bool = False, log: Log = print) -> ModelShape:
    """Count what the model `name` is made of.

    Args:
        name: a config.json, a folder that holds one, or any name that `model.locate` knows.
        trust_remote_code: let the model's own Python code run.
        log: told when something slow happens.

    Raises:
        SourceNotFoundError: there is nothing of that name.
        DataError: config.json is no causal language model that transformers knows.
        DependencyError: a package that this model needs is missing.
    """
    config = causal_configuration(_config_file(name, log), trust_remote_code=trust_remote_code)
    stored_bytes = _stored_bytes(config)  # a model made of it writes its own precision into it
    model = build_on_meta(config, name, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linears = [
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    text_config = config.get_text_config()
    _, layers = decoder_layers(model)
    shapes = [tuple((key, tuple(parameter.shape)) for key, parameter in layer.named_parameters()) for layer in layers]
    equal_layers = len(set(shapes)) == 1
    parameters = sum(parameter.numel() for parameter in model.parameters())
    layer_count = len(layers)
    if equal_layers:
        cut_layers(model, min(layer_count, CUT_LAYERS))
    return ModelShape(
        name=name,
        kind=type(model).__name__,
        parameters=parameters,
        linear_parameters=sum(linears),
        head_parameters=head.weight.numel(),
        layers=layer_count,
        hidden_width=int(text_config.hidden_size),
        vocabulary=len(head.weight),
        largest_linear=max(linears, default=0),
        stored_bytes_per_parameter=stored_bytes,
        equal_layers=equal_layers,
        cut=model,
    )


def build_on_meta(config: Any, name: str, *, trust_remote_code: bool = False) -> Any:
    """A model whose tensors have shapes and no memory.

    Raises:
        DataError: transformers knows no causal language model for this configuration, or its numbers contradict.
        DependencyError: a package that this model needs is missing.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), _transformers_warnings_disabled():
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except ImportError as error:
        raise DependencyError("This model needs another package", where=name, found=cause_of(error)) from error
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(
            "This is not the configuration of a causal language model",
            where=name,
            found=cause_of(error)[:200],
            expected="config.json of a decoder such as Llama, Qwen or Gemma",
            fix="give a model that writes text; an encoder cannot be fine-tuned to follow instructions",
        ) from error


def _config_file(name: str, log: Log) -> Path:
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".json":
        return path
    if path.is_dir() and name not in embedded_models():
        file = path / CONFIG_FILE
        if not file.is_file():
            raise DataError(
                f"The folder '{name}' holds no {CONFIG_FILE}",
                where=name,
                found=", ".join(sorted(child.name for child in path.iterdir())[:8]) or "an empty folder",
                expected=CONFIG_FILE,
                fix="give the folder of a model, or its config.json",
            )
        return file
    return model_folder(name, weights=False, log=log) / CONFIG_FILE


def _stored_bytes(config: Any) -> int:
    stored = config.get_text_config().dtype or config.dtype
    return 4 if stored is None else torch.empty((), dtype=stored).element_size()


@contextmanager
def _transformers_warnings_disabled() -> Iterator[None]:
    """Keep transformers from warning about weights that nobody asked it to load."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
