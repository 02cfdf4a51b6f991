"""What a run says of its replies as such, as `result.json` holds it under `health`, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from tutelage.runs.fields import Fields

Health: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""By set, the figures of `evaluate.health.health_figures`."""

QUESTIONS = ("ended", "not_empty", "no_loop", "same_language")
"""Those of them that are shares of replies in good health."""


def read_health(fields: Fields) -> Health:
    """What a file says by set; empty where it says nothing, as older files do. What is damaged is left out."""
    return {name: fields.inner(name).numbers() for name in fields.content}
