"""Folds an adapter into its base: `W + s B A` is a weight like any other (Hu et al. 2021, LoRA, section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tutelage.errors import ConfigError, SaveError, cause_of, remedy
from tutelage.model.adapters.adapter_set import WEIGHTS, attach_adapter
from tutelage.model.load import load, no_progress_bars


def merge_adapter(base: Path, adapter: Path, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Write the model in `base` with `adapter` folded in: safetensors and configuration, in the base's precision.

    Args:
        base: its folder; the weights are read whole, whatever the adapter was trained beside.
        adapter: an adapter of PEFT for it.
        folder: exists.
        trust_remote_code: the base's own Python code may run.

    Raises:
        DataError: the base cannot be loaded, or the adapter does not belong to it.
        SaveError: the disk is full or refuses.
    """
    model, _ = load(base, trust_remote_code=trust_remote_code, onto="cpu")
    dtypes = dtypes_of(model)
    merged = merged_model(model, adapter)
    cast_weights(merged, dtypes)
    try:
        with no_progress_bars():
            merged.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise SaveError(
            "The merged model could not be saved",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error


def merged_model(model: Any, adapter: Path) -> Any:
    """`model` with `adapter` folded in, each sum taken in fp32; what the adapter changed is in fp32 when this returns.

    An embedding and a head that are one tensor become two first where a pair belongs to one of them, or one to each:
    PEFT adds both pairs to the shared tensor, which is another model than the one that was trained (0.21.2).

    Args:
        model: the base, in main memory, in any precision.
        adapter: an adapter of PEFT for it.

    Raises:
        DataError: the adapter does not belong to it.
        ConfigError: it has several pairs for one weight, each in another place, which no merged weight can stand for.
    """
    if is_tied(model) and _has_pairs_of_its_own(model, adapter):
        untie(model)
    adapted = attach_adapter(model, adapter)
    _require_weights_of_their_own(adapted, adapter)
    with warnings.catch_warnings():
        # That a layer is merged already, as it was here, one after the other, so that one alone is wide at a time.
        warnings.filterwarnings("ignore", message="(Already following|All adapters are already)", category=UserWarning)
        # That the two are untied, which the configuration says from then on.
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer", category=UserWarning)
        for layer in _adapted_layers(adapted):
            layer.get_base_layer().float()
            layer.merge()
        return adapted.merge_and_unload()


def set_weights(model: Any, weights_by_layer: Mapping[str, torch.Tensor]) -> None:
    """Give layers of `model` the weights under their names, in the dtype that these have."""
    for name, weight in weights_by_layer.items():
        model.get_submodule(name).weight.data = weight


def dtypes_of(model: Any) -> dict[str, torch.dtype]:
    """That of each floating parameter by its name, both names of a tied one."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: parameter.dtype for name, parameter in named if parameter.is_floating_point()}


def cast_weights(model: Any, dtypes: Mapping[str, torch.dtype]) -> None:
    """Cast each parameter that is named, and say so in the configuration; buffers stay.

    Rotary frequencies, which are buffers, lose their meaning in half precision.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, dtype in dtypes.items():
        named[name].data = named[name].data.to(dtype)
    model.config.dtype = next(iter(dtypes.values()))


def is_tied(model: Any) -> bool:
    """Whether its head and its input embedding are one tensor."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def untie(model: Any) -> None:
    """Give the head a tensor of its own, and say so in the configuration."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for part in {id(model.config): model.config, id(text := model.config.get_text_config()): text}.values():
        part.tie_word_embeddings = False


def _has_pairs_of_its_own(model: Any, adapter: Path) -> bool:
    """Whether pairs of the adapter stand at the embedding or the head; whole modules stay tied by themselves."""
    ends = [
        name
        for name, module in model.named_modules()
        if module is model.get_output_embeddings() or module is model.get_input_embeddings()
    ]
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        keys = list(file.keys())
    return any(f".{name}.lora_" in f".{key}" for name in ends for key in keys)


def _require_weights_of_their_own(adapted: Any, adapter: Path) -> None:
    """Refuse pairs in several places of one weight, to which PEFT adds all of them (0.21.2).

    Zamba uses one block in several places, each of which has pairs of its own.

    Raises:
        ConfigError: there are such.
    """
    places: dict[int, list[str]] = {}
    layers = {id(layer) for layer in _adapted_layers(adapted)}
    for name, module in adapted.named_modules():
        weight = getattr(module.get_base_layer(), "weight", None) if id(module) in layers else None
        if weight is not None:  # experts of a mixture have others, each with a name of its own
            places.setdefault(id(weight), []).append(name)
    shared = [names for names in places.values() if len(names) > 1]
    if shared:
        raise ConfigError(
            "An adapter whose pairs share a weight cannot be folded into its base",
            where=str(adapter),
            found=f"{len(shared)} weights, for example that of {' and '.join(shared[0][:2])}",
            expected="one pair for each weight",
            fix='keep the adapter beside its base: model.adapter = "continue" trains it on, and tutelage export RUN '
            "--to adapter writes it",
        )


def _adapted_layers(adapted: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
