"""Keyword arguments -> settings: `train(model, epochs=2, lora={"rank": 16}, **{"pack.max_seq_length": 512})`.

A keyword is a dotted name of the recipe; or the last part of one, where no other field ends so; or a section with a
mapping of its fields. What is none of these is answered as a recipe's unknown key is: with the nearest right name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tutelage.config.naming import MAPPING_FIELDS, paths, section_types
from tutelage.config.reading import from_mapping
from tutelage.config.settings import Settings


def from_keywords(keywords: Mapping[str, Any], *, where: str) -> Settings:
    """Settings, checked and resolved as a recipe's are.

    Args:
        keywords: by dotted name, last part of one, or section. Paths and tuples are taken as texts and lists.
        where: words for where they came from, for the error.

    Raises:
        ConfigError: at least one of them cannot work; all problems are in the one error.
    """
    values: dict[str, Any] = {}
    for keyword, value in keywords.items():
        path = full_path(keyword)
        if isinstance(value, Mapping) and path in section_types():
            for name, inner in value.items():
                _put(values, f"{path}.{name}", inner)
        else:
            _put(values, path, value)
    return from_mapping(values, where=where)


def full_path(keyword: str) -> str:
    """The dotted name that a keyword stands for; itself where it stands for none or for several."""
    setting_paths = paths()
    if keyword in setting_paths or keyword in section_types() or "." in keyword:
        return keyword
    # A section's own field comes before that of a table in it: `method` is the model's, not a step's of curation.
    ends = [path for path in setting_paths if path.rpartition(".")[2] == keyword]
    nearer = [path for path in ends if path.count(".") == min(end.count(".") for end in ends)]
    return nearer[0] if len(nearer) == 1 else keyword


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set one field; a field that is not known keeps its name, and is refused by it."""
    section, dot, key = path.partition(".")
    if not dot or not isinstance(values.setdefault(section, {}), dict):
        values[path] = _as_recipe(value)
        return
    field, inner_dot, inner = key.partition(".")
    if inner_dot and f"{section}.{field}" in MAPPING_FIELDS and isinstance(values[section].setdefault(field, {}), dict):
        values[section][field][inner] = _as_recipe(value)
    else:
        values[section][key] = _as_recipe(value)


def _as_recipe(value: Any) -> Any:
    """A value as TOML would have given it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_as_recipe(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: _as_recipe(inner) for key, inner in value.items()}
    return value
