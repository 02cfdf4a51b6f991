"""What a row says of itself: id, source, license, model, time, language, category, split, score. Never trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from tutelage.formats.names import METADATA, TABLE
from tutelage.types import Label

METADATA_CHARACTERS: Final = 512
"""A longer text is no label of a row; our choice."""

Metadata = dict[str, Label | Mapping[str, Label]]


def metadata_of(raw: Mapping[str, Any]) -> Metadata:
    """The fields of metadata that the row's columns hold, by name; of several columns of one field the first counts.

    A column counts for more than a field of the same name in the column `metadata`.
    """
    own = raw.get(METADATA)
    metadata = filter_metadata(own) if isinstance(own, Mapping) else Metadata()
    for field, columns in TABLE["metadata"].items():
        for column in columns:
            value = raw.get(column)
            if is_metadata(value):
                metadata[field] = value
                break
    return metadata


def is_metadata(value: Any) -> TypeGuard[Label]:
    """Whether a value can be kept as metadata: a short text that says something, a finite number, true or false."""
    if isinstance(value, str):
        return 0 < len(value) <= METADATA_CHARACTERS and not value.isspace()
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


def filter_metadata(values: Mapping[str, Any]) -> Metadata:
    """Those of the values that can be kept as metadata; of several under one name, such as scores, those that can."""
    kept = Metadata()
    for name, value in values.items():
        if is_metadata(value):
            kept[name] = value
        elif isinstance(value, Mapping) and (inner := {key: each for key, each in value.items() if is_metadata(each)}):
            kept[name] = inner
    return kept
