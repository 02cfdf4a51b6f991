"""A model before it is loaded: exact counts of its parameters, from config.json alone, on torch's meta device."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import DataError, DependencyError, cause_of
from tutelage.model.source import Say, embedded_models, model_folder

CONFIG_FILE = "config.json"
CUT_LAYERS = 3
"""Layers of `Blueprint.cut`: what two and three layers need tells what each further one adds."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a model is, without a byte of its weights.

    Attributes:
        name: what was asked for.
        kind: the model's class.
        parameters: all of them; a head tied to the embeddings counts once.
        linear_parameters: weights of linear layers but the output head: what 4-bit quantisation shrinks.
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
    def layers_here(self) -> int:
        """How many layers `cut` has."""
        return min(self.layers, CUT_LAYERS) if self.equal_layers else self.layers

    def with_layers(self, count: int) -> Any:
        """A copy of the meta model with its first `count` layers.

        Raises:
            AssertionError: more than `cut` holds.
        """
        model = copy.deepcopy(self.cut)
        decoder = model.get_decoder()
        name, layers = decoder_layers(decoder, self.layers_here)
        assert count <= len(layers), f"{count} layers asked for, {len(layers)} are here"
        setattr(decoder, name, layers[:count])
        return model


def read_blueprint(name: str, *, trust_remote_code: bool = False, say: Say = print) -> Blueprint:
    """Count what the model `name` is made of.

    Args:
        name: a config.json, a folder that holds one, or any name that `model.source` knows.
        trust_remote_code: let the model's own Python code run.
        say: told when something slow happens.

    Raises:
        SourceNotFoundError: there is nothing of that name.
        DataError: config.json is no causal language model that transformers knows.
        DependencyError: a package that this model needs is missing.
    """
    config = _read_config(_config_file(name, say), trust_remote_code=trust_remote_code)
    stored_bytes = _stored_bytes(config)  # a model made of it writes its own precision into it
    model = on_meta(config, name, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linears = [one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    text = config.get_text_config()
    attribute, layers = decoder_layers(model.get_decoder(), int(text.num_hidden_layers))
    shapes = [tuple((key, tuple(one.shape)) for key, one in layer.named_parameters()) for layer in layers]
    equal = len(set(shapes)) == 1
    parameters = sum(one.numel() for one in model.parameters())
    depth = len(layers)
    if equal:
        setattr(model.get_decoder(), attribute, layers[:CUT_LAYERS])
    return Blueprint(
        name=name,
        kind=type(model).__name__,
        parameters=parameters,
        linear_parameters=sum(linears),
        head_parameters=head.weight.numel(),
        layers=depth,
        hidden_width=int(text.hidden_size),
        vocabulary=len(head.weight),
        largest_linear=max(linears, default=0),
        stored_bytes_per_parameter=stored_bytes,
        equal_layers=equal,
        cut=model,
    )


def decoder_layers(decoder: Any, depth: int) -> tuple[str, torch.nn.ModuleList]:
    """The list of `depth` layers that a decoder runs through, and its name there.

    Raises:
        DataError: there is no such list, so nothing can be told from a few layers.
    """
    lists = [(name, one) for name, one in decoder.named_children() if isinstance(one, torch.nn.ModuleList)]
    for name, one in lists:
        if len(one) == depth:
            return name, one
    raise DataError(
        "This model does not keep its layers in one list, so it cannot be planned",
        where=type(decoder).__name__,
        found=", ".join(f"{name}: {len(one)}" for name, one in lists) or "no list of layers",
        expected=f"a list of {depth} layers",
        fix="train a few steps and read peak_bytes in record.jsonl",
    )


def on_meta(config: Any, name: str, *, trust_remote_code: bool = False) -> Any:
    """A model whose tensors have shapes and no memory.

    Raises:
        DataError: transformers knows no causal language model for this configuration, or its numbers contradict.
        DependencyError: a package that this model needs is missing.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), _quiet():
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


def _config_file(name: str, say: Say) -> Path:
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".json":
        return path
    if path.is_dir() and name not in embedded_models():
        file = path / CONFIG_FILE
        if not file.is_file():
            raise DataError(
                f"The folder '{name}' holds no {CONFIG_FILE}",
                where=name,
                found=", ".join(sorted(one.name for one in path.iterdir())[:8]) or "an empty folder",
                expected=CONFIG_FILE,
                fix="give the folder of a model, or its config.json",
            )
        return file
    return model_folder(name, weights=False, say=say) / CONFIG_FILE


def _read_config(file: Path, *, trust_remote_code: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(str(file), trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise DataError(
            "The model's configuration cannot be read",
            where=str(file),
            found=str(error).strip().split("\n")[-1].strip()[:200],
            expected="config.json with a model_type that transformers knows",
            fix="check the file; a model with its own code needs model.trust_remote_code = true",
        ) from error
    known = {
        one
        for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for one in ([names] if isinstance(names, str) else names)
    }
    named = written.get("architectures") or []
    if named and not trust_remote_code and not set(named) & known:
        raise DataError(
            "This model does not write text, so there is nothing to fine-tune",
            where=str(file),
            found=f"architectures: {', '.join(named)}",
            expected="a causal language model, such as LlamaForCausalLM",
            fix="give the instruction or base model, not an encoder or a classifier",
        )
    return config


def _stored_bytes(config: Any) -> int:
    stored = config.get_text_config().dtype or config.dtype
    return 4 if stored is None else torch.empty((), dtype=stored).element_size()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from warning about weights that nobody asked it to load."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
