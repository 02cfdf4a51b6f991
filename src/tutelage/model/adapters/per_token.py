"""Another adapter for each token of a row: several adapters of one base in one forward pass.

PEFT mixes adapters in a batch by naming one for each of its rows. An adapted layer treats tokens alike, so a row of
tokens is handed to it as a batch of rows of one token, and PEFT's own code does the rest.

Shape legend: T = tokens of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from peft import PeftModel

from tutelage.errors import ConfigError

PEFT_BASE = "__base__"
"""PEFT's name for no adapter at all."""

_NAMES: ContextVar[Sequence[str] | None] = ContextVar("adapter_of_each_token", default=None)


def has_adapters(model: Any) -> bool:
    """Whether PEFT is around a model."""
    return isinstance(model, PeftModel)


def require_mixable(model: Any, names: Collection[str]) -> None:
    """Refuse names that are no adapters of the model, and adapters that cannot be mixed in one pass.

    Args:
        model: with PEFT around it, or without.
        names: PEFT's, or `PEFT_BASE`.

    Raises:
        ConfigError: that is so.
    """
    known = list(model.peft_config) if has_adapters(model) else []
    for name in names:
        if name == PEFT_BASE:
            continue
        if name not in known:
            raise ConfigError(
                "This model has no adapter of that name",
                where="Request.adapter",
                found=name,
                expected=f"one of {', '.join(known)}" if known else "a model with adapters",
                fix="load the adapter first (model.adapters.adapter_set.add_adapter)",
            )
        peft_config = model.peft_config[name]
        whole = [part for part in ("modules_to_save", "trainable_token_indices") if getattr(peft_config, part, None)]
        kind = str(peft_config.peft_type.value)
        found = kind if kind != "LORA" else "DoRA" if peft_config.use_dora else whole[0] if whole else None
        if found is not None:
            raise ConfigError(
                "This adapter cannot be mixed with others in one forward pass",
                where="Request.adapter",
                found=f"{name} has {found}",
                expected="LoRA pairs and nothing else",
                fix="ask it in a call of its own",
            )


@contextmanager
def mixed_adapters(model: Any) -> Iterator[None]:
    """In the block the adapted layers of a model take the adapters that `tokens_of` names.

    Args:
        model: with PEFT around it, or the base inside of it.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    with ExitStack() as undo:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                undo.callback(module.register_forward_pre_hook(_as_batch, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(_as_row).remove)
        yield


@contextmanager
def tokens_of(names: Sequence[str]) -> Iterator[None]:
    """In the block the tokens of a row, [1, T], have these adapters, T of them."""
    token = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(token)


def _as_batch(
    _module: Any, inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = _NAMES.get()
    assert names is not None, "tokens_of is open around every forward pass"
    row, *others = inputs
    if row.shape[:2] != (1, len(names)):
        raise ConfigError(
            "This adapter cannot be mixed with others in one forward pass",
            where="Request.adapter",
            found="a layer that is given other tokens than those of the row, as experts of a mixture are",
            expected="adapted layers that all tokens pass in order",
            fix="ask each adapter in a call of its own",
        )
    return (row.transpose(0, 1), *others), {**arguments, "adapter_names": list(names)}


def _as_row(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.transpose(0, 1)
