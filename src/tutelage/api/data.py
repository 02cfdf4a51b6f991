"""What a caller names as data -> sources as a recipe names them. Imports without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.errors import DataError
from tutelage.formats.memory import keep_rows

Data = str | os.PathLike[str] | Iterable[Any]
"""A path, glob, folder or hub id, or a list of them; or rows: a list of dicts, a `datasets.Dataset`, any iterable."""
DATA_SETTINGS = {
    "data": "data.train",
    "validation": "data.validation",
    "task": "evaluate.task",
    "general": "evaluate.general",
}
"""Which setting each argument fills."""
NO_DATA = {"data.train": ["<none>"]}
"""Stands where settings name data, for those that read none."""


def sources_of(data: Data, label: str) -> list[str]:
    """The sources to read; rows are written to the cache first, where a resume finds them.

    Args:
        data: see `Data`; an iterator is drawn once.
        label: what addresses call rows, as in `<data>[17]`.

    Raises:
        DataError: rows that are none, with their address.
    """
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if isinstance(data, Mapping):
        raise DataError(
            "One dict is neither rows nor a place where they are",
            where=f"<{label}>",
            found=f"a {type(data).__name__} with the keys {', '.join(map(str, list(data)[:5]))}",
            expected="a path, a hub id, or an iterable of dicts",
            fix="hand in a list of dicts; of several splits, one: data['train']",
        )
    if isinstance(data, Sequence) and data and all(isinstance(item, str | os.PathLike) for item in data):
        return [os.fspath(item) for item in data]
    if not isinstance(data, Iterable):
        raise DataError(
            "This is no data",
            where=f"<{label}>",
            found=f"a {type(data).__name__}",
            expected="a path, a hub id, or an iterable of dicts",
            fix="hand in one of these",
        )
    return [keep_rows(data, label)]


def data_keywords(**data_arguments: Data | None) -> dict[str, list[str]]:
    """The settings for data that was given by argument: `data=`, `validation=`, `task=`, `general=`."""
    return {
        DATA_SETTINGS[label]: sources_of(value, label) for label, value in data_arguments.items() if value is not None
    }
