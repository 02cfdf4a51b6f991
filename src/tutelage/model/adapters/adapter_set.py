"""Several adapters on one loaded base, one of them active at a time, through PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tutelage.errors import ConfigError, DataError

DEFAULT_ADAPTER = "default"
"""PEFT's name for the adapter that a model was opened with."""
WEIGHTS = "adapter_model.safetensors"
KINDS = {"LORA": "LoRA", "PROMPT_TUNING": "prompt tuning"}


def add_adapter(model: Any, folder: Path, *, slot: str) -> None:
    """Load the adapter in `folder` beside those that `model` has; it answers only inside `active_adapter`.

    Args:
        model: from `model.adapters.lora.attach_adapter`.
        folder: an adapter folder of PEFT.
        slot: PEFT's name for it; no other adapter of `model` has it.

    Raises:
        ConfigError: it is of another kind; PEFT cannot hold both on one base.
        DataError: it was trained from a model with other layers or other widths, or cannot be read.
    """
    from peft import PeftConfig

    try:
        peft_config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _misfit(model, folder, found=f"adapter_config.json: {_first_line(error)}") from error
    kind, model_kind = str(peft_config.peft_type.value), str(model.peft_type.value)
    if kind != model_kind:
        raise ConfigError(
            "PEFT holds adapters of one kind on a base, not of two",
            where=str(folder),
            found=f"{KINDS.get(kind, kind)} beside {KINDS.get(model_kind, model_kind)}",
            expected=f"another adapter of {KINDS.get(model_kind, model_kind)}",
            fix="ask the two in two calls",
        )
    width = model.get_input_embeddings().weight.shape[1]
    if peft_config.is_prompt_learning and peft_config.token_dim != width:
        raise _misfit(model, folder, found=f"virtual tokens of width {peft_config.token_dim}, not {width}")
    try:
        with _missing_keys_unsaid():
            model.load_adapter(folder, adapter_name=slot, torch_device=str(model.device))
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:  # other shapes are the first two
        raise _misfit(model, folder, found=_first_line(error)) from error
    _tie_whole_modules(model, slot)
    _hold_against_saved(model, folder, slot=slot)


def attach_adapter(model: Any, folder: Path, *, learns: bool = False) -> Any:
    """The base model with the adapter saved in `folder` beside it, not merged.

    Args:
        model: its base; where the adapter holds an embedding of other rows, the base gets as many.
        folder: an adapter folder of PEFT.
        learns: it is to be trained on.

    Raises:
        DataError: it was trained from a model with other layers or other widths, or cannot be read.
    """
    from peft import PeftConfig, PeftModel

    try:
        rows = _embedding_rows(model, folder)
        if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=False)  # of no account: the adapter brings them
        prompts = PeftConfig.from_pretrained(str(folder)).is_prompt_learning
        with _missing_keys_unsaid():
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=learns and not prompts)
        if learns and prompts:  # which PEFT does not open for training, though nothing is in the way of it
            adapted.active_peft_config.inference_mode = False
            adapted.prompt_encoder.requires_grad_(True)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise _misfit(model, folder, found=_first_line(error)) from error
    _hold_against_saved(adapted, folder, slot=DEFAULT_ADAPTER)
    return adapted


def _tie_whole_modules(model: Any, slot: str) -> None:
    """Give a head that is tied to an embedding trained whole its weight in `slot`, too.

    PEFT ties them for the first adapter of a model and leaves the head of another one out (0.21.2).
    """
    from peft.utils.other import ModulesToSaveWrapper

    wrappers = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    first = {id(wrapper): wrapper.modules_to_save[DEFAULT_ADAPTER] for wrapper in wrappers}
    for wrapper in wrappers:
        if slot in wrapper.modules_to_save:
            continue
        for other in wrappers:
            if slot in other.modules_to_save and first[id(other)].weight is first[id(wrapper)].weight:
                wrapper.update(slot, tied_module=other.modules_to_save[slot])


def _embedding_rows(model: Any, folder: Path) -> int | None:
    """Rows of an input embedding that the adapter holds whole; None where it holds none."""
    inputs = model.get_input_embeddings()
    (name,) = (name for name, module in model.named_modules() if module is inputs)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        embedding_keys = [key for key in file.keys() if key.endswith(f"{name}.weight")]  # noqa: SIM118 not a mapping
        return int(file.get_slice(embedding_keys[0]).get_shape()[0]) if embedding_keys else None


def _hold_against_saved(model: Any, folder: Path, *, slot: str) -> None:
    """Give an adapter the tensors that PEFT read past, and refuse one with too much or too little a place.

    For some kinds (Laguna's shared experts, Inkling's convolutions) PEFT converts names that are converted already, and
    leaves the pairs behind them as they begin, with a warning (0.21.2).

    Raises:
        DataError: a tensor has no partner, or another shape.
    """
    from peft import get_peft_model_state_dict

    present = get_peft_model_state_dict(model, adapter_name=slot)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = set(file.keys())
            saved = {name: file.get_tensor(name) for name in names & set(present)}
    except (OSError, SafetensorError) as error:
        raise _misfit(model, folder, found=_first_line(error)) from error
    if unmatched := sorted(names ^ set(present)):
        raise _misfit(model, folder, found=f"{len(unmatched)} tensors without a partner, for example {unmatched[0]}")
    for name, value in saved.items():
        if not _is_loaded(present[name], value) and present[name].shape == value.shape:
            present[name].copy_(value)  # shares its memory with the model's
    loaded = get_peft_model_state_dict(model, adapter_name=slot)
    for name, value in saved.items():
        if not _is_loaded(loaded[name], value):
            raise _misfit(model, folder, found=f"{name} is not as saved once it is loaded")


def _is_loaded(present: torch.Tensor, saved: torch.Tensor) -> bool:
    value = saved.to(present.dtype)
    return present.shape == value.shape and torch.equal(present.cpu().nan_to_num(), value.nan_to_num())


@contextmanager
def _missing_keys_unsaid() -> Iterator[None]:
    """In the block PEFT does not warn of tensors that it read past: they are looked for behind it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
        yield


@contextmanager
def active_adapter(model: Any, slot: str) -> Iterator[Any]:
    """`model` with the adapter in `slot`; the one it was opened with is back when the block ends."""
    model.set_adapter(slot, inference_mode=True)
    try:
        yield model
    finally:
        model.set_adapter(DEFAULT_ADAPTER, inference_mode=True)


@contextmanager
def without_adapter(model: Any) -> Iterator[Any]:
    """`model` as its base, evaluated: nothing is drawn; afterwards it trains and learns as before.

    PEFT marks the parameters of a switched-off adapter as not learning, and then all of them as learning.
    """
    learning = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    was_training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            yield model
    finally:
        model.train(was_training)
        for parameter in model.parameters():
            if parameter.requires_grad != (id(parameter) in learning):
                parameter.requires_grad_(id(parameter) in learning)


def _first_line(error: Exception) -> str:
    """What torch and PEFT say in their first two lines, the first of which only announces the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _misfit(model: Any, folder: Path, *, found: str) -> DataError:
    settings = model.config.get_text_config()
    return DataError(
        "This adapter does not belong to this base model",
        where=str(folder),
        found=found,
        expected=f"an adapter of a {settings.model_type} of {settings.num_hidden_layers} layers and width "
        f"{settings.hidden_size}",
        fix="give an adapter that was trained from the same model",
    )
