"""What is trained: every weight, or low-rank adapters beside frozen ones (LoRA, Hu et al. 2021, through PEFT)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora_init import (
    PREPROCESSED_INITS,
    CalibrationData,
    init_from_inputs,
    preprocess_with_data,
)
from tutelage.model.adapters.lora_targets import (
    ALL_LINEAR,
    PEFT_REFUSALS,
    expert_adapters,
    probe_logits,
    resolve_targets,
    unadapted_note,
    with_modules_to_save,
)
from tutelage.model.adapters.trainable import Method, Trainable, trainable_summary
from tutelage.model.freeze import freeze

START_TOLERANCE = 0.05
"""Of the logits' length. Rounding to bf16 leaves less; a pair that is not what was taken from its weight leaves far
more, as it holds the largest of it."""
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "lora_ga")
"""Initializations that move a part of each weight into its adapter (PEFT's names, by their beginning)."""


def make_all_trainable(model: Any, *, frozen: Sequence[str] = ()) -> tuple[Any, Trainable]:
    """Full fine-tuning: every parameter learns, but those that a pattern of `frozen` names (see `model.freeze`).

    Raises:
        ConfigError: a pattern matches nothing, or together they match everything.
    """
    model.requires_grad_(True)
    notes = freeze(model, frozen)
    return model, trainable_summary(model, "full", notes=notes)


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
    calibration_data: CalibrationData | None = None,
    modules_to_save: Sequence[str] = (),
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
        init: "default", or another of PEFT's names but "loftq", which starts as the default (see `model.loftq`).
        calibration_data: the data that "eva", "corda" and "lora_ga" look at.
        modules_to_save: modules that are trained whole beside the pairs, each by name or the end of it from a dot on.

    Raises:
        ConfigError: a target or one of `modules_to_save` names no layer of this model, PEFT cannot do this with it, or
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
    config = with_modules_to_save(model, resolve_targets(model, config), modules_to_save)
    if init != "default":
        _check_rank(model, rank, init)
    base_logits = probe_logits(model) if init.startswith(BASE_CHANGING_INITS) else None
    adapted = _with_pairs(model, config, init, calibration_data)
    if base_logits is not None:
        _check_start(adapted, init, base_logits)
    notes = unadapted_note(model, adapted) if targets == ALL_LINEAR else ()
    if init == "eva":
        init_from_inputs(adapted, _needed(calibration_data), rank=rank)
        if expert_adapters(adapted):
            notes += ("Pairs of experts start as lora.init = default, as eva looks at what goes into a layer",)
    quantized = any(not parameter.is_floating_point() for parameter in adapted.parameters())
    method: Method = "qlora" if quantized else "lora"
    return adapted, trainable_summary(adapted, method, notes=notes, start=_start(adapted, init))


def _with_pairs(model: Any, config: Any, init: str, calibration_data: CalibrationData | None) -> Any:
    from peft import get_peft_model

    try:
        if init in PREPROCESSED_INITS:
            preprocess_with_data(model, config, _needed(calibration_data))
        with warnings.catch_warnings():
            # It advises to leave memory out that is filled right after.
            warnings.filterwarnings("ignore", message="lora with eva initialization", category=UserWarning)
            # Patterns that PEFT makes for experts; it looks for them among modules, and they are parameters.
            warnings.filterwarnings(
                "ignore", message="The following (rank|alpha)_pattern keys", category=RuntimeWarning
            )
            return get_peft_model(model, config)
    except PEFT_REFUSALS as error:  # with another start it takes them, as `resolve_targets` tried
        raise _no_start(init, found=str(error)) from error


def _as_peft_starts(init: str) -> dict[str, Any]:
    """The fields of PEFT's `LoraConfig` that say how an adapter starts."""
    from peft import EvaConfig
    from peft.tuners.lora.config import CordaConfig, LoraGAConfig

    init_configs: dict[str, dict[str, Any]] = {
        "eva": {"eva_config": EvaConfig(rho=1.0)},
        "corda": {"corda_config": CordaConfig(corda_method="ipm")},
        "lora_ga": {"lora_ga_config": LoraGAConfig()},
    }
    return {"init_lora_weights": True if init in ("default", "loftq") else init} | init_configs.get(init, {})


def _needed(calibration_data: CalibrationData | None) -> CalibrationData:
    assert calibration_data is not None, "this initialisation starts from data"
    return calibration_data


def _no_start(init: str, *, found: str) -> ConfigError:
    return ConfigError(
        f"The {init} initialisation does not fit some of the weights that were chosen",
        where="lora.init",
        found=found.strip().split("\n")[0],
        expected='lora.init = "default", or lora.target_modules without them',
        fix='set lora.init = "default"',
    )


def _check_start(adapted: Any, init: str, base_logits: torch.Tensor) -> None:
    """Refuse a start that is not the base's: PEFT splits some weights that are stored transposed the wrong way.

    Raises:
        ConfigError: the model with its pairs answers otherwise than without.
    """
    try:
        relative_difference = (probe_logits(adapted) - base_logits).norm() / base_logits.norm()
    except RuntimeError as error:
        raise _no_start(init, found=str(error)) from error
    if not relative_difference < START_TOLERANCE:
        raise _no_start(init, found=f"the model answers otherwise with its pairs, by {float(relative_difference):.0%}")


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

    if not init.startswith(BASE_CHANGING_INITS):
        return {}
    return {name: tensor.detach().float().clone() for name, tensor in get_peft_model_state_dict(adapted).items()}
