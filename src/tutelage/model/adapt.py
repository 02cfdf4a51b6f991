"""What is trained: every weight, or low-rank adapters beside frozen ones (LoRA, Hu et al. 2021, through PEFT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from tutelage.errors import ConfigError
from tutelage.model.freeze import freeze
from tutelage.model.quantise import parameter_count, stored_bytes

Method = Literal["full", "lora", "qlora", "prompt"]
CHANGES_THE_BASE = ("pissa", "olora")
"""Initialisations that move a part of each weight into its adapter (PEFT's names, by their beginning)."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """What will be trained.

    Attributes:
        method: how.
        parameters: in all, adapters included; a weight in 4 bits counts once.
        trainable: how many of them learn.
        weight_bytes: all parameters as they lie in memory before the run casts them.
        trainable_bytes: the fp32 masters of those that learn.
        notes: what a user should know about it.
        start: an adapter's tensors before the first step, in fp32 and PEFT's names, where its initialisation has
            changed the base; empty elsewhere. `train.save` subtracts them.
    """

    method: Method
    parameters: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int
    notes: tuple[str, ...] = ()
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)


def train_everything(model: Any, *, frozen: Sequence[str] = ()) -> tuple[Any, Adapted]:
    """Full fine-tuning: every parameter learns, but those that a pattern of `frozen` names (see `model.freeze`).

    Raises:
        ConfigError: a pattern matches nothing, or together they match everything.
    """
    model.requires_grad_(True)
    notes = freeze(model, frozen)
    return model, counted(model, "full", notes=notes)


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: str | Sequence[str],
    rslora: bool = False,
    dora: bool = False,
    init: str = "default",
) -> tuple[Any, Adapted]:
    """Freeze the model and put a low-rank pair beside each target; at step 0 the output equals the base's.

    Exactly so where one of the pair is zero (default, gaussian, mica), else within rounding.

    Args:
        model: a transformers causal language model; its weights may be in 4 bits (`model.quantise`).
        rank: inner width r of each pair.
        alpha: the pair's output is scaled by alpha / rank.
        dropout: share of the pair's inputs zeroed in training.
        targets: "all-linear" (every linear layer but the output head), or names of layers.
        rslora: scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, section 3).
        dora: learn the norm of each row of W + BA apart (Liu et al. 2024, section 4).
        init: "default", or another of PEFT's names.

    Raises:
        ConfigError: a target names no layer of this model, or PEFT cannot do this with the layers.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=rslora,
        use_dora=dora,
        init_lora_weights=True if init == "default" else init,
        task_type="CAUSAL_LM",
    )
    _check_targets(model, targets)
    if init != "default":
        _check_rank(model, rank, init)
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise _refused(model, found=str(error)) from error
    quantised = any(not one.is_floating_point() for one in adapted.parameters())
    return adapted, counted(adapted, "qlora" if quantised else "lora", start=_start(adapted, init))


def _check_targets(model: torch.nn.Module, targets: str | Sequence[str]) -> None:
    """Refuse targets that PEFT would not find, by its own rule: a whole name, or its end from a dot on."""
    layers = [name for name, _ in model.named_modules()]
    asked = [] if isinstance(targets, str) else targets
    wrong = [one for one in asked if not any(name == one or name.endswith(f".{one}") for name in layers)]
    if wrong:
        raise _refused(model, found=", ".join(wrong))


def _refused(model: torch.nn.Module, *, found: str) -> ConfigError:
    names = {name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    return ConfigError(
        "LoRA does not find its targets in this model",
        where="lora.targets",
        found=found,
        expected=f'"all-linear", or some of: {", ".join(sorted(names))}',
        fix='set lora.targets = "all-linear"',
    )


def _check_rank(model: torch.nn.Module, rank: int, init: str) -> None:
    if init == "orthogonal" and rank % 2:
        raise ConfigError(
            "The orthogonal initialisation splits the rank in halves",
            where="lora.rank",
            found=str(rank),
            expected="an even number",
            fix=f"set lora.rank = {rank + 1}",
        )
    narrowest = min(min(one.weight.shape) for one in model.modules() if type(one) is torch.nn.Linear)
    if init not in ("gaussian", "orthogonal") and rank > narrowest:
        raise ConfigError(
            f"The {init} initialisation takes as many directions of a weight as the rank; one has fewer",
            where="lora.rank",
            found=str(rank),
            expected=f"at most {narrowest}",
            fix='lower lora.rank, or set lora.init = "default"',
        )


def _start(adapted: Any, init: str) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    if not init.startswith(CHANGES_THE_BASE):
        return {}
    return {name: one.detach().float().clone() for name, one in get_peft_model_state_dict(adapted).items()}


def put_adapter(model: Any, folder: Path) -> Any:
    """The base model with the adapter saved in `folder` beside it, not merged."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)


def counted(
    model: torch.nn.Module,
    method: Method,
    *,
    notes: tuple[str, ...] = (),
    start: Mapping[str, torch.Tensor] | None = None,
) -> Adapted:
    """The record of a model whose parameters are marked as learning or not."""
    everything = list(model.parameters())
    trainable = sum(one.numel() for one in everything if one.requires_grad)
    return Adapted(
        method,
        parameters=sum(parameter_count(one) for one in everything),
        trainable=trainable,
        weight_bytes=sum(stored_bytes(one) for one in everything),
        trainable_bytes=4 * trainable,
        notes=notes,
        start=start or {},
    )
