"""Which weights of a model get a low-rank pair: what is asked for, tried against what PEFT takes before any changes.

PEFT knows some mixtures of experts by name and gives their experts pairs; others it leaves without, and of those that
it knows it leaves out the linear layers that are named like an expert's. What "all-linear" means is the same here for
all: every linear layer but the output head, and the weights of experts, which are parameters of three dimensions.
"""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.attention.packed import NAME, use_generation_attention, use_packed_attention
from tutelage.model.linear_weights import layer_matrices, of_any_layer
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.quantization import parameter_count
from tutelage.model.refusals import REFUSALS

ALL_LINEAR = "all-linear"
TRIED_TOKENS = 8
PEFT_REFUSALS = (ValueError, AttributeError, TypeError, KeyError, NotImplementedError)
"""What PEFT raises where it cannot adapt a layer, or cannot with the settings that it was given."""
_PLAINER: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lora.dora", "lora.dora = false", {"use_dora": False}),
    ("lora.dropout", "lora.dropout = 0.0", {"lora_dropout": 0.0}),
    ("lora.dora", "lora.dora = false and lora.dropout = 0.0", {"use_dora": False, "lora_dropout": 0.0}),
)
"""Settings that some layers cannot have, and what to write instead."""


def linear_layers(model: Any) -> list[str]:
    """Every linear layer but the output head, by name."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head]


def resolve_targets(model: Any, config: Any) -> Any:
    """`config` with targets that PEFT takes on this model; the model is left as it came.

    Args:
        model: without an adapter.
        config: PEFT's `LoraConfig`. Of "all-linear" what PEFT refuses is left out, see `unadapted_note`; a named target
            that is a parameter goes to PEFT's `target_parameters`.

    Raises:
        ConfigError: a target names nothing, or PEFT cannot do this with the layers; what is advised was tried.
    """
    plain = replace(config, init_lora_weights=True, corda_config=None, lora_ga_config=None, eva_config=None)
    targets: dict[str, Any] = {"target_modules": ALL_LINEAR}
    if config.target_modules != ALL_LINEAR:
        targets = _as_targets(model, sorted(config.target_modules))
        if error := _refusal(model, replace(plain, **targets)):
            raise _advice(model, replace(plain, **targets), error)
        return replace(config, **targets)
    idle = _idle_modules(model)
    layers = [name for name in linear_layers(model) if name not in idle]
    if len(layers) < len(linear_layers(model)):
        targets = {"target_modules": layers}
    if error := _refusal(model, replace(plain, **targets)):
        layers = _taken_layers(model, plain, layers)
        if not layers:
            raise _advice(model, plain, error)
        targets = {"target_modules": layers}
    if parameters := _passed_over(model, replace(plain, **targets), layers=layers, idle=idle):
        targets |= {"target_parameters": parameters}
        if error := _refusal(model, replace(plain, **targets)):
            raise _advice(model, replace(plain, **targets), error)
    return replace(config, **targets)


def with_modules_to_save(model: Any, config: Any, names: Sequence[str]) -> Any:
    """`config` with modules that are trained whole; one whose weights are tied to another's stays tied.

    Raises:
        ConfigError: a name is no module's with weights of its own, or is that of a layer with a pair.
    """
    if not names:
        return config
    # The embedding and the head are the two that a checkpoint may tie, and PEFT must be told of the first alone.
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    modules = {
        name: module for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    }
    for requested in names:
        matches = [module for name, module in modules.items() if name == requested or name.endswith(f".{requested}")]
        if matches and not (tied and head in matches):
            continue
        near = difflib.get_close_matches(requested, {name.rpartition(".")[2] for name in modules}, n=3, cutoff=0.4)
        (inputs,) = (name.rpartition(".")[2] for name, module in modules.items() if module is embedding)
        raise ConfigError(
            "A module that is to be trained whole is tied to the input embedding"
            if matches
            else "A module that is to be trained whole is not one of this model",
            where="lora.modules_to_save",
            found=requested,
            expected=inputs if matches else f"a name such as {', '.join(near or [inputs])}",
            fix=f'write "{inputs if matches or not near else near[0]}" instead',
        )
    return replace(config, modules_to_save=list(names), ensure_weight_tying=tied)


def adapted_weight_ids(adapted: Any) -> set[int]:
    """The `id` of each weight of the base that has a pair."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    return {
        id(module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight)
        for module in adapted.modules()
        if isinstance(module, LoraLayer)
    }


def expert_adapters(adapted: Any) -> list[str]:
    """Names of the modules whose parameters, rather than whose outputs, have a pair."""
    from peft.tuners.lora.layer import ParamWrapper

    return [name for name, module in adapted.named_modules() if isinstance(module, ParamWrapper)]


def unadapted_note(model: Any, adapted: Any) -> tuple[str, ...]:
    """A line about the weights of a model's layers that have no pair, and their share; none where all have one."""
    chosen = adapted_weight_ids(adapted)
    matrices = dict(layer_matrices(model))
    unadapted = {name: weight for name, weight in matrices.items() if id(weight) not in chosen}
    if not unadapted:
        return ()
    share = sum(map(parameter_count, unadapted.values())) / sum(map(parameter_count, matrices.values()))
    names = sorted({of_any_layer(name) for name in unadapted})
    return (f"No pair beside {', '.join(names)}: {share:.1%} of the weights that multiply in its layers",)


@contextmanager
def _tried(model: Any, config: Any) -> Iterator[Any]:
    """PEFT's model with pairs that take no memory; `model` is as it was when the block ends, or when PEFT refuses."""
    from peft import get_peft_model

    original_states = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield get_peft_model(model, copy.deepcopy(config), low_cpu_mem_usage=True)
    finally:
        remove_adapter_layers(model)
        for parameter, requires_grad in original_states:
            parameter.requires_grad_(requires_grad)


def remove_adapter_layers(model: Any) -> None:
    """Put each layer of `model` that has a pair back in its place, without it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, layer in reversed(layers.items()):  # a module with a pair of its own may hold layers with pairs
        parent, _, leaf = name.rpartition(".")
        if parent not in layers:  # pairs of several parameters of a module lie in each other
            model.get_submodule(parent)._modules[leaf] = layer.get_base_layer()
    vars(model).pop("peft_config", None)


def _refusal(model: Any, config: Any) -> Exception | None:
    """What PEFT says where it does not take `config`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is only tried; what is done in the end warns again
        try:
            with _tried(model, config):
                return None
        except PEFT_REFUSALS as error:
            return error


@torch.no_grad()
def probe_logits(model: Any) -> torch.Tensor:
    """What the model answers to the first few tokens of its vocabulary, with the attention that a server uses: fp32."""
    isolated, was_training = model.config._attn_implementation == NAME, model.training
    if isolated:
        use_generation_attention(model)
    model.eval()
    try:
        ids = torch.arange(TRIED_TOKENS, device=model.get_input_embeddings().weight.device)[None]
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float()
    finally:
        model.train(was_training)
        if isolated:
            use_packed_attention(model)
    return logits


def _idle_modules(model: Any) -> set[str]:
    """Modules with weights that a forward pass goes past, or that give something else than a product with each input.

    What holds the first reads them itself, so a pair would not act; beside the second, a pair's product does not fit.
    A module that is given its input by name counts with them, as PEFT's pairs take it by position.

    Modules of one name in all layers count together, as not every expert is asked. Nothing is idle where there are no
    numbers, or where the model does not take a few tokens as they are.
    """
    matrices = [name.rpartition(".")[0] for name, _ in layer_matrices(model)]
    if model.get_input_embeddings().weight.device.type == "meta":
        return set()
    called: set[str] = set()

    def note(module: Any, args: tuple[Any, ...], output: Any, *, name: str) -> None:
        width = getattr(module, "out_features", None)
        if args and (
            width is None or (isinstance(output, torch.Tensor) and output.shape == (*args[0].shape[:-1], width))
        ):
            called.add(name)

    hooks = [model.get_submodule(name).register_forward_hook(partial(note, name=name)) for name in set(matrices)]
    try:
        probe_logits(model)
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return set()
    finally:
        for hook in hooks:
            hook.remove()
    busy = {of_any_layer(f"{name}.") for name in called}
    return {name for name in matrices if of_any_layer(f"{name}.") not in busy}


def _taken_layers(model: Any, config: Any, layers: Sequence[str]) -> list[str]:
    """Those of the linear `layers` that PEFT takes, all of a name together; none where it is the settings it minds."""
    by_leaf: dict[str, list[str]] = {}
    for name in layers:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    bare = replace(config, use_dora=False, lora_dropout=0.0)
    accepted = [
        name
        for names in by_leaf.values()
        if _refusal(model, replace(bare, target_modules=names)) is None
        for name in names
    ]
    accepted = accepted if len(accepted) < len(layers) else []
    return accepted if accepted and _refusal(model, replace(config, target_modules=accepted)) is None else []


def _passed_over(model: Any, config: Any, *, layers: Sequence[str], idle: set[str]) -> list[str]:
    """Parameters to name to PEFT: experts of three dimensions, and those of `layers` that it gave no pair.

    A weight in 4 bits has lost its shape, so PEFT could adapt it as a layer's only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _tried(model, config) as adapted:
            chosen = adapted_weight_ids(adapted)
    layer_weights = {f"{name}.weight" for name in layers}
    return [
        name
        for name, weight in layer_matrices(model)
        if id(weight) not in chosen
        and weight.is_floating_point()
        and name.rpartition(".")[0] not in idle
        and ((weight.ndim == 3 and min(weight.shape[1:]) > 1) or name in layer_weights)
    ]


def _named(model: Any, targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Targets that are modules, and those that are parameters, by PEFT's rule: a whole name, or its end from a dot on.

    Raises:
        ConfigError: one is neither.
    """
    layers = [name for name, _ in model.named_modules()]
    weights = [name for name, _ in layer_matrices(model)]

    def among(names: list[str], target: str) -> bool:
        return any(name == target or name.endswith(f".{target}") for name in names)

    modules = [target for target in targets if among(layers, target)]
    parameters = [target for target in targets if target not in modules and among(weights, target)]
    if wrong := [target for target in targets if target not in modules and target not in parameters]:
        raise ConfigError(
            "LoRA does not find its targets in this model",
            where="lora.target_modules",
            found=", ".join(wrong),
            expected=f'"{ALL_LINEAR}", or some of: {", ".join(target_names(model))}',
            fix=f'set lora.target_modules = "{ALL_LINEAR}"',
        )
    return modules, parameters


def target_names(model: Any) -> list[str]:
    """What `lora.target_modules` can name: the last part of each linear layer's name; experts with what holds them."""
    layers = {name.rpartition(".")[2] for name in linear_layers(model)}
    experts = {".".join(name.split(".")[-2:]) for name, weight in layer_matrices(model) if weight.ndim == 3}
    return [*sorted(layers), *sorted(experts)]


def _advice(model: Any, config: Any, error: Exception) -> ConfigError:
    """The first change that was tried and works: of a setting that these layers cannot have, or of the targets."""
    text = str(error).strip().split("\n")[0]
    for where, remedy, changes in _PLAINER:
        current = {name: getattr(config, name) for name in changes}
        if all(current[name] != value for name, value in changes.items()) and (
            _refusal(model, replace(config, **changes)) is None
        ):
            problem = "PEFT gives some of the weights that were chosen, such as experts, no pair of this kind"
            return ConfigError(problem, where=where, found=text, expected=remedy, fix=f"set {remedy}")
    requested_targets = config.target_modules
    candidates = target_names(model) if isinstance(requested_targets, str) else sorted(requested_targets)
    accepted = [
        candidate
        for candidate in candidates
        if _refusal(model, replace(config, **_as_targets(model, [candidate]))) is None
    ]
    if accepted and _refusal(model, replace(config, **_as_targets(model, accepted))) is None:
        fix = "set lora.target_modules = [" + ", ".join(f'"{target}"' for target in accepted) + "]"
    else:
        fix = 'set model.method = "full", or choose another model'
    return ConfigError(
        "PEFT does not adapt some of the layers that were chosen",
        where="lora.target_modules",
        found=text,
        expected="layers that PEFT adapts in this model" + (f": {', '.join(accepted)}" if accepted else ""),
        fix=fix,
    )


def _as_targets(model: Any, names: Sequence[str]) -> dict[str, Any]:
    modules, parameters = _named(model, names)
    return {"target_modules": modules, "target_parameters": parameters or None}
