"""Whether a checkpoint is the model that its config.json describes: what was missing, too much, or of another shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.model.layers import decoder_layers
from tutelage.model.safetensors_header import stored_tensors

SHOWN_NAMES = 4


def require_agreement(model: Any, folder: Path, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Hold what was loaded against what `folder` stores.

    Args:
        model: as it was loaded.
        folder: its safetensors.
        report: transformers' loading report.

    Returns:
        A sentence about what the checkpoint holds besides, such as the part that looks at pictures, if anything.

    Raises:
        DataError: a tensor is missing, has another shape, or belongs to a part of the model that takes no such tensor.
    """
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        raise _disagreement(folder, f"not stored: {_name_list(missing)}")
    if mismatched:
        shapes = [
            f"{name} {list(stored_shape)} stored, {list(expected_shape)} by config.json"
            for name, stored_shape, expected_shape in mismatched
        ]
        raise _disagreement(folder, _name_list(shapes))
    unexpected = sorted(report["unexpected_keys"])
    misplaced = [name for name in unexpected if _belongs_to_model(model, name)]
    if misplaced:
        raise _disagreement(folder, f"stored, and not in the model: {_name_list(misplaced)}")
    patterns = [re.compile(expression) for expression in model._keys_to_ignore_on_load_unexpected or ()]
    stored = stored_tensors(folder)
    ignored = [
        name
        for name in stored
        if any(pattern.search(name) for pattern in patterns) and not _belongs_to_model(model, name)
    ]
    unused_names = sorted({*unexpected, *ignored})
    if not unused_names:
        return ()
    weight_count = sum(stored[name] for name in unused_names if name in stored)
    prefix_counts = Counter(_name_prefix(name) for name in unused_names)
    summary = ", ".join(f"{prefix} ({count} tensors)" for prefix, count in prefix_counts.most_common(SHOWN_NAMES))
    return (
        f"The checkpoint holds {weight_count:,} numbers that are no part of the text model and stay behind: {summary}",
    )


def _belongs_to_model(model: Any, name: str) -> bool:
    """Whether a tensor without a place would lie in the list of layers, or in a module that the model has."""
    modules = {path: module for path, module in model.named_modules() if path}
    _, layers = decoder_layers(model)
    layer_lists = [path for path, module in modules.items() if module is layers]
    full_names = (name, f"{model.base_model_prefix}.{name}")  # some checkpoints leave out the name of the model inside
    in_layers = any(full_name.startswith(f"{path}.") for path in layer_lists for full_name in full_names)
    return in_layers or any(full_name.rpartition(".")[0] in modules for full_name in full_names)


def _name_prefix(name: str) -> str:
    """The name up to its first number, at most two words of it."""
    components = []
    for component in name.split(".")[:2]:
        if component.isdigit():
            break
        components.append(component)
    return ".".join(components) or name


def _name_list(names: Iterable[str]) -> str:
    listed = list(names)
    suffix = f" and {len(listed) - SHOWN_NAMES} more" if len(listed) > SHOWN_NAMES else ""
    return ", ".join(listed[:SHOWN_NAMES]) + suffix


def _disagreement(folder: Path, disagreement: str) -> DataError:
    return DataError(
        "config.json and the weights disagree",
        where=str(folder),
        found=disagreement,
        expected="each weight of the model stored once, in the shape that config.json gives it",
        fix="take config.json and safetensors from one download or one save_pretrained",
    )
