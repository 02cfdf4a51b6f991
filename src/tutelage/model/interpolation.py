"""The dial: a trained model between its base (0) and what was trained (1), `base + value (tuned - base)`, untrained.

Of whole weights each tensor is taken between the two (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, section 2). Of
an adapter the scale of each pair is turned, which is the same sum without a second model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.adapter_set import DEFAULT_ADAPTER, active_adapter

HIGHEST = 2.0
"""Beyond 1 the change is exaggerated; from here on a value is more likely a slip. Our choice."""


def interpolated(base: torch.Tensor, tuned: torch.Tensor, value: float) -> torch.Tensor:
    """Base + value (tuned - base), in fp32 and rounded once, like `tuned` in dtype and place; exact at 0 and 1."""
    if value in (0.0, 1.0):
        return (tuned if value else base).to(tuned.device, tuned.dtype, copy=True)
    base_fp32, tuned_fp32 = base.to(tuned.device, torch.float32), tuned.float()
    return (base_fp32 + value * (tuned_fp32 - base_fp32)).to(tuned.dtype)


@contextmanager
def weights_at(tuned: Any, base: Any, value: float) -> Iterator[Any]:
    """`tuned`, its weights between those of `base` and its own; its own are back when the block ends.

    While the block runs its own weights are in main memory, the others where the model is. A tensor with two names is
    taken once.

    Args:
        tuned: a model that was trained whole.
        base: the model it was trained from, on any device.
        value: from 0, which is `base` bit for bit, to 1, which is `tuned`, and beyond up to `HIGHEST`.

    Raises:
        ConfigError: the value is out of range, or the two do not have the same tensors.
    """
    require_value(value)
    pairs = _paired(base, tuned)
    own: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for start, tensor in pairs if value != 1.0 else ():
                own.append((tensor, tensor.data.cpu()))  # which copies nothing that is in main memory already
                tensor.data = interpolated(start.data, tensor.data, value)
        yield tuned
    finally:
        for tensor, data in own:
            tensor.data = data.to(tensor.device)


@contextmanager
def adapter_at(model: Any, value: float, *, start_slot: str | None = None) -> Iterator[Any]:
    """`model` with its adapter at `value`; all is as it was when the block ends.

    A pair's scale is multiplied by the value. What an adapter trains whole (`modules_to_save`) is taken between the
    base's weights and its own. Of DoRA, whose magnitudes make the change more than a product, each layer's output is
    taken between that without and that with its pair: the same as of its merged weights, which PEFT does not merge so.

    Args:
        model: a base with the adapter that was trained, active (`model.adapters.adapter_set.attach_adapter`).
        value: from 0, which is the base bit for bit, to 1, which is the model as it is, and beyond up to `HIGHEST`.
        start_slot: the adapter that training began with, which then belongs to the base: its pairs get `1 - value`.

    Raises:
        ConfigError: the value is out of range, or the adapter is of a kind that has no values between.
    """
    require_value(value)
    require_scalable(model, start_slot=start_slot)
    if value == 1.0:
        yield model
    elif value == 0.0:
        with model.disable_adapter() if start_slot is None else active_adapter(model, start_slot):
            yield model
    else:
        with ExitStack() as undo:
            _scale_pairs(model, value, start_slot, undo.callback)
            _mix_whole_modules(model, value, start_slot, undo.callback)
            yield model


def require_value(value: float) -> None:
    """Refuse a value that is none of the dial's.

    Raises:
        ConfigError: that is so.
    """
    if not 0.0 <= value <= HIGHEST:
        raise ConfigError(
            "The dial does not go there",
            where="--dial",
            found=f"{value:g}",
            expected=f"from 0 (the base) to 1 (what was trained), or beyond up to {HIGHEST:g}",
            fix="give values such as 0,0.25,0.5,0.75,1",
        )


def require_scalable(model: Any, *, start_slot: str | None = None) -> None:
    """Refuse an adapter of a kind that has no values between, before anything is measured.

    Raises:
        ConfigError: that is so.
    """
    adapter_config = model.peft_config[DEFAULT_ADAPTER]
    if str(adapter_config.peft_type.value) != "LORA":
        raise nothing_between(
            "prompt tuning adds virtual tokens, of which no part is the base: none of them is",
            fix="leave --dial out",
        )
    if adapter_config.bias != "none":
        raise nothing_between(f"the adapter trained biases of its base (bias = {adapter_config.bias})", fix="merge it")
    if adapter_config.trainable_token_indices:
        raise nothing_between("the adapter has rows of tokens of its own (trainable_token_indices)", fix="merge it")
    if start_slot is not None and any(layer.lora_variant for layer in _pair_layers(model)):
        raise nothing_between(
            "the run trained an adapter of DoRA on, so its base has magnitudes as well",
            fix='start from its merged weights instead: model.adapter = "merge"',
        )


def mark_whole_modules(model: Any) -> None:
    """Mark what an adapter trained whole as trained, which PEFT forgets when it opens one to be asked."""
    for wrapper in _whole_modules(model):
        wrapper.modules_to_save.requires_grad_(True)


def _scale_pairs(model: Any, value: float, start_slot: str | None, undo: Callable[..., Any]) -> None:
    for layer in _pair_layers(model):
        if DEFAULT_ADAPTER in layer.lora_variant:
            undo(layer.register_forward_hook(_between_outputs(value), with_kwargs=True).remove)
            continue
        undo(layer.scaling.update, dict(layer.scaling))
        layer.scaling[DEFAULT_ADAPTER] *= value
        if start_slot is not None:
            undo(layer.set_adapter, list(layer.active_adapters), inference_mode=True)
            layer.set_adapter([start_slot, DEFAULT_ADAPTER], inference_mode=True)
            layer.scaling[start_slot] *= 1.0 - value


def _between_outputs(value: float) -> Callable[..., torch.Tensor]:
    def between(layer: Any, args: tuple[Any, ...], arguments: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        return interpolated(layer.base_layer(*args, **arguments), output, value)

    return between


def _mix_whole_modules(model: Any, value: float, start_slot: str | None, undo: Callable[..., Any]) -> None:
    mixed: set[int] = set()
    for wrapper in _whole_modules(model):
        start = wrapper.original_module if start_slot is None else wrapper.modules_to_save[start_slot]
        for base, tuned in _paired(start, wrapper.modules_to_save[DEFAULT_ADAPTER]):
            if id(tuned) not in mixed:  # a tied head is the embedding's tensor in a module of its own
                mixed.add(id(tuned))
                undo(setattr, tuned, "data", tuned.data)
                with torch.no_grad():
                    tuned.data = interpolated(base.data, tuned.data, value)


def _paired(base: Any, tuned: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The parameters of two modules by their names, each tensor of `tuned` once.

    Raises:
        ConfigError: they do not have the same ones.
    """
    start = dict(base.named_parameters(remove_duplicate=False))
    own = dict(tuned.named_parameters(remove_duplicate=False))
    wrong = sorted(start.keys() ^ own.keys()) or [name for name in own if start[name].shape != own[name].shape]
    if wrong:
        raise nothing_between(
            f"{len(wrong)} tensors that its base does not have in this shape, such as {wrong[0]}",
            fix="leave --dial out",
        )
    by_id = {id(tensor): (start[name], tensor) for name, tensor in own.items()}
    return list(by_id.values())


def _pair_layers(model: Any) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _whole_modules(model: Any) -> list[Any]:
    from peft.utils.other import ModulesToSaveWrapper

    return [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]


def nothing_between(found: str, *, fix: str) -> ConfigError:
    """The error of a model of a kind that has no values between."""
    return ConfigError(
        "This model has nothing between its base and what was trained",
        where="--dial",
        found=found,
        expected="a run of full fine-tuning, or of LoRA or QLoRA",
        fix=fix,
    )
