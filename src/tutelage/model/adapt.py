"""What is trained: every weight, or low-rank adapters beside frozen ones (LoRA, Hu et al. 2021, through PEFT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tutelage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Adapted:
    """What will be trained: the method, parameters in all, and how many of them learn."""

    method: Literal["full", "lora"]
    parameters: int
    trainable: int


def train_everything(model: Any) -> tuple[Any, Adapted]:
    """Full fine-tuning: every parameter learns."""
    model.requires_grad_(True)
    return model, _count(model, "full")


def add_lora(
    model: Any, *, rank: int, alpha: float, dropout: float, targets: str | Sequence[str]
) -> tuple[Any, Adapted]:
    """Freeze the model and put a low-rank pair beside each target; at step 0 the output equals the base exactly.

    Args:
        model: a transformers causal language model.
        rank: inner width r of each pair.
        alpha: the pair's output is scaled by alpha / rank.
        dropout: share of the pair's inputs zeroed in training.
        targets: "all-linear" (every linear layer but the output head), or names of layers.

    Raises:
        ConfigError: a target names no layer of this model.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    wrong = [] if isinstance(targets, str) else [one for one in targets if not _names_a_layer(model, one)]
    try:
        if wrong:
            raise ValueError(", ".join(wrong))
        adapted = get_peft_model(model, config)
    except ValueError as error:
        names = {name.rsplit(".", 1)[-1] for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
        raise ConfigError(
            "LoRA does not find its targets in this model",
            where="lora.targets",
            found=", ".join(wrong) or str(targets),
            expected=f'"all-linear", or some of: {", ".join(sorted(names))}',
            fix='set lora.targets = "all-linear"',
        ) from error
    return adapted, _count(adapted, "lora")


def _names_a_layer(model: torch.nn.Module, target: str) -> bool:
    """PEFT's own rule for a list of targets: a whole name, or its end from a dot on."""
    return any(name == target or name.endswith(f".{target}") for name, _ in model.named_modules())


def put_adapter(model: Any, folder: Path) -> Any:
    """The base model with the adapter saved in `folder` beside it, not merged."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)


def _count(model: torch.nn.Module, method: Literal["full", "lora"]) -> Adapted:
    sizes = [(one.numel(), one.requires_grad) for one in model.parameters()]
    return Adapted(method, sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns))
