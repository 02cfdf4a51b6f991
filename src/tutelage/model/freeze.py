"""Freezes the weights that patterns name, for full fine-tuning of a part of a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch

from tutelage.errors import ConfigError
from tutelage.model.patterns import matches


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Freeze every parameter with a name that one of `patterns` matches; return notes about what that means.

    A pattern is matched against whole parts of a name, which dots separate: `layers.1` is in `model.layers.1.mlp` and
    not in `model.layers.10.mlp`. `*` and `?` stand for any letters, dots included. Weights with two names (a tied
    output head is the input embedding) are frozen under both.

    Raises:
        ConfigError: a pattern matches no name, or nothing is left to learn.
    """
    if not patterns:
        return ()
    named = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        chosen = [name for name in named if matches(name, pattern)]
        if not chosen:
            raise _nothing(pattern, list(named))
        for name in chosen:
            named[name].requires_grad = False
    if not any(one.requires_grad for one in named.values()):
        raise ConfigError(
            "Every weight is frozen; nothing would be trained",
            where="model.freeze",
            found=", ".join(patterns),
            expected="patterns that leave something to learn",
            fix='take a pattern out, or set model.method = "lora"',
        )
    return _notes(named, patterns)


def _notes(named: dict[str, torch.nn.Parameter], patterns: Sequence[str]) -> tuple[str, ...]:
    frozen = {id(one): one for one in named.values() if not one.requires_grad}
    notes = [
        f"Frozen by model.freeze: {sum(one.numel() for one in frozen.values()):,} parameters in "
        f"{len(frozen)} tensor{'s' * (len(frozen) > 1)}"
    ]
    for key in frozen:
        names = [name for name, one in named.items() if id(one) == key]
        unasked = [name for name in names if not any(matches(name, pattern) for pattern in patterns)]
        asked = [name for name in names if name not in unasked]
        notes += [f"{name} is the same weights as {asked[0]}, so it is frozen too" for name in unasked]
    return tuple(notes)


def _nothing(pattern: str, names: list[str]) -> ConfigError:
    """Names near to a pattern: of whole names and of each of their ends, as a pattern may say either."""
    ends = {name.split(".", start)[start]: name for name in names for start in range(name.count(".") + 1)}
    parts = {part: part for name in names for part in name.split(".") if not part.isdigit()}
    stem = pattern.strip("*.")
    near = difflib.get_close_matches(stem, parts | ends, n=3, cutoff=0.6)
    return ConfigError(
        "A pattern of model.freeze matches no weight of this model",
        where="model.freeze",
        found=pattern,
        expected=f"a part of a name such as {', '.join(near or names[:3])}",
        fix=f'write "{near[0]}"' if near else "see the names in the model's safetensors",
    )
