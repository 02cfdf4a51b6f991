"""How a pattern of `model.freeze` is read. No torch."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(name: str, pattern: str) -> bool:
    """Whether whole parts of `name` are what `pattern` says."""
    return fnmatchcase(f".{name}.", f"*.{pattern}.*")
