"""Tiny sizes of any kind of model: known fields of its configuration made small, and what `kinds.toml` adds."""

from __future__ import annotations

import re
import tomllib
from functools import cache, reduce
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

KINDS = Path(__file__).parent / "kinds.toml"
MOST_PARAMETERS = 7_000_000
VOCABULARY = 128


@cache
def facts() -> dict[str, Any]:
    """Sizes by field name, and what single kinds need beyond them."""
    return tomllib.loads(KINDS.read_text(encoding="utf-8"))


def shrink(config: Any) -> None:
    """Make every known field of a configuration, and of those inside of it, as small as `kinds.toml` says."""
    for name, value in config.to_dict().items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        size = next((size for pattern, size in facts()["sizes"].items() if re.fullmatch(pattern, name)), None)
        if size is not None and value > size:
            setattr(config, name, size)
        elif size is None and name.endswith("_token_id") and value >= VOCABULARY:
            setattr(config, name, 3)
    layers = getattr(config, "num_hidden_layers", None)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and isinstance(layers, int) and len(value) > layers and "layer" in name:
            kinds = list(dict.fromkeys(value)) if all(isinstance(one, (str, int)) for one in value) else value
            setattr(config, name, (kinds + value)[:layers])
    for name in getattr(config, "sub_configs", {}):
        if (inner := getattr(config, name, None)) is not None:
            shrink(inner)


def tiny_config(kind: str, **more: Any) -> Any:
    """The configuration of a kind in tiny sizes; `more` goes to its constructor."""
    own = facts()["kinds"].get(kind, {})
    config = AutoConfig.for_model(kind, **own.get("given", {}) | more)
    shrink(config)
    for name, value in own.get("then", {}).items():
        *inside, field = name.split(".")
        setattr(reduce(getattr, inside, config), field, value)
    return config


def tiny_kind(kind: str, *, factor: float = 4.0, **more: Any) -> Any:
    """A random fp32 model of a kind, in evaluation mode, its matrices enlarged so that all of it shows in the loss.

    Raises:
        AssertionError: its sizes are not tiny.
    """
    config = tiny_config(kind, **more)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert size <= MOST_PARAMETERS, f"{kind}: {size} parameters"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
    return model
