"""What is trained: every weight, or low-rank adapters beside frozen ones (LoRA, Hu et al. 2021, through PEFT)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora_init import LOOKS_FIRST, CalibrationData, look_first, start_from_inputs
from tutelage.model.adapters.lora_targets import (
    EVERY,
    PEFT_REFUSALS,
    expert_pairs,
    few_logits,
    fitted,
    unpaired,
    with_whole_modules,
)
from tutelage.model.adapters.trainable import Trainable, counted
from tutelage.model.freeze import freeze

START_TOLERANCE = 0.05
"""Of the logits' length. Rounding to bf16 leaves less; a pair that is not what was taken from its weight leaves far
more, as it holds the largest of it."""
CHANGES_THE_BASE = ("pissa", "olora", "corda", "lora_ga")
"""Initialisations that move a part of each weight into its adapter (PEFT's names, by their beginning)."""


def train_everything(model: Any, *, frozen: Sequence[str] = ()) -> tuple[Any, Trainable]:
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
    sight: CalibrationData | None = None,
    whole: Sequence[str] = (),
) -> tuple[Any, Trainable]:
    """Freeze the model and put a low-rank pair beside each target; at step 0 the output equals the base's.

    Exactly so where one of the pair is zero (default, gaussian, mica, eva), else within rounding.

    Args:
        model: a transformers causal language model; its weights may be in 4 bits (`model.quantization`).
        rank: inner width r of each pair.
        alpha: the pair's output is scaled by alpha / rank.
        dropout: share of the pair's inputs zeroed in training.
        targets: "all-linear" (every linear layer but the output head), or names of layers.
        rslora: scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, section 3).
        dora: learn the norm of each row of W + BA apart (Liu et al. 2024, section 4).
        init: "default", or another of PEFT's names but "loftq", which starts as the default (see `loftq`).
        sight: the data that "eva", "corda" and "lora_ga" look at.
        whole: modules that are trained whole beside the pairs, each by its name or the end of it from a dot on.

    Raises:
        ConfigError: a target or one of `whole` names no layer of this model, PEFT cannot do this with the layers, or
            the data has too few trained tokens.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=rslora,
        use_dora=dora,
        task_type="CAUSAL_LM",
        **_as_peft_starts(init),
    )
    config = with_whole_modules(model, fitted(model, config), whole)
    if init != "default":
        _check_rank(model, rank, init)
    before = few_logits(model) if init.startswith(CHANGES_THE_BASE) else None
    adapted = _with_pairs(model, config, init, sight)
    if before is not None:
        _check_start(adapted, init, before)
    notes = unpaired(model, adapted) if targets == EVERY else ()
    if init == "eva":
        start_from_inputs(adapted, _needed(sight), rank=rank)
        if expert_pairs(adapted):
            notes += ("Pairs of experts start as lora.init = default, as eva looks at what goes into a layer",)
    quantised = any(not parameter.is_floating_point() for parameter in adapted.parameters())
    return adapted, counted(adapted, "qlora" if quantised else "lora", notes=notes, start=_start(adapted, init))


def _with_pairs(model: Any, config: Any, init: str, sight: CalibrationData | None) -> Any:
    from peft import get_peft_model

    try:
        if init in LOOKS_FIRST:
            look_first(model, config, _needed(sight))
        with warnings.catch_warnings():
            # It advises to leave memory out that is filled right after.
            warnings.filterwarnings("ignore", message="lora with eva initialization", category=UserWarning)
            # Patterns that PEFT makes for experts; it looks for them among modules, and they are parameters.
            warnings.filterwarnings(
                "ignore", message="The following (rank|alpha)_pattern keys", category=RuntimeWarning
            )
            return get_peft_model(model, config)
    except PEFT_REFUSALS as error:  # with another start it takes them, as `fitted` tried
        raise _no_start(init, found=str(error)) from error


def _as_peft_starts(init: str) -> dict[str, Any]:
    """The fields of PEFT's `LoraConfig` that say how an adapter starts."""
    from peft import EvaConfig
    from peft.tuners.lora.config import CordaConfig, LoraGAConfig

    more: dict[str, dict[str, Any]] = {
        "eva": {"eva_config": EvaConfig(rho=1.0)},
        "corda": {"corda_config": CordaConfig(corda_method="ipm")},
        "lora_ga": {"lora_ga_config": LoraGAConfig()},
    }
    return {"init_lora_weights": True if init in ("default", "loftq") else init} | more.get(init, {})


def _needed(sight: CalibrationData | None) -> CalibrationData:
    assert sight is not None, "this initialisation starts from data"
    return sight


def _no_start(init: str, *, found: str) -> ConfigError:
    return ConfigError(
        f"The {init} initialisation does not fit some of the weights that were chosen",
        where="lora.init",
        found=found.strip().split("\n")[0],
        expected='lora.init = "default", or lora.target_modules without them',
        fix='set lora.init = "default"',
    )


def _check_start(adapted: Any, init: str, before: torch.Tensor) -> None:
    """Refuse a start that is not the base's: PEFT splits some weights that are stored transposed the wrong way.

    Raises:
        ConfigError: the model with its pairs answers otherwise than without.
    """
    try:
        apart = (few_logits(adapted) - before).norm() / before.norm()
    except RuntimeError as error:
        raise _no_start(init, found=str(error)) from error
    if not apart < START_TOLERANCE:
        raise _no_start(init, found=f"the model answers otherwise with its pairs, by {float(apart):.0%}")


def _check_rank(model: torch.nn.Module, rank: int, init: str) -> None:
    if init == "orthogonal" and rank % 2:
        raise ConfigError(
            "The orthogonal initialisation splits the rank in halves",
            where="lora.rank",
            found=str(rank),
            expected="an even number",
            fix=f"set lora.rank = {rank + 1}",
        )
    narrowest = min(
        min(module.in_features, module.out_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    )
    if init not in ("gaussian", "orthogonal") and rank * (2 if init == "lora_ga" else 1) > narrowest:
        raise ConfigError(
            f"The {init} initialisation takes as many directions of a weight as the rank; one has fewer",
            where="lora.rank",
            found=str(rank),
            expected=f"at most {narrowest // 2 if init == 'lora_ga' else narrowest}",
            fix='lower lora.rank, or set lora.init = "default"',
        )


def _start(adapted: Any, init: str) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    if not init.startswith(CHANGES_THE_BASE):
        return {}
    return {name: one.detach().float().clone() for name, one in get_peft_model_state_dict(adapted).items()}
