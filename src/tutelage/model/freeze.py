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
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        matched_names = [name for name in parameters if matches(name, pattern)]
        if not matched_names:
            raise _no_match_error(pattern, list(parameters))
        for name in matched_names:
            parameters[name].requires_grad = False
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(
            "Every weight is frozen; nothing would be trained",
            where="model.freeze",
            found=", ".join(patterns),
            expected="patterns that leave something to learn",
            fix='take a pattern out, or set model.method = "lora"',
        )
    return _freeze_notes(parameters, patterns)


def _freeze_notes(parameters: dict[str, torch.nn.Parameter], patterns: Sequence[str]) -> tuple[str, ...]:
    frozen = {id(parameter): parameter for parameter in parameters.values() if not parameter.requires_grad}
    notes = [
        f"Frozen by model.freeze: {sum(parameter.numel() for parameter in frozen.values()):,} parameters in "
        f"{len(frozen)} tensor{'s' * (len(frozen) > 1)}"
    ]
    for parameter_id in frozen:
        names = [name for name, parameter in parameters.items() if id(parameter) == parameter_id]
        tied_names = [name for name in names if not any(matches(name, pattern) for pattern in patterns)]
        matched_names = [name for name in names if name not in tied_names]
        notes += [f"{name} is the same weights as {matched_names[0]}, so it is frozen too" for name in tied_names]
    return tuple(notes)


def _no_match_error(pattern: str, names: list[str]) -> ConfigError:
    """Names near to a pattern: of whole names and of each of their ends, as a pattern may say either."""
    ends = {name.split(".", start)[start]: name for name in names for start in range(name.count(".") + 1)}
    components = {component: component for name in names for component in name.split(".") if not component.isdigit()}
    stem = pattern.strip("*.")
    close_names = difflib.get_close_matches(stem, components | ends, n=3, cutoff=0.6)
    return ConfigError(
        "A pattern of model.freeze matches no weight of this model",
        where="model.freeze",
        found=pattern,
        expected=f"a part of a name such as {', '.join(close_names or names[:3])}",
        fix=f'write "{close_names[0]}"' if close_names else "see the names in the model's safetensors",
    )
