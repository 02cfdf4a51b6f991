"""What no setting may be, whatever its field: numbers, depths and texts that nothing behind the front door can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.config.problems import Problem

MOST_RECIPE_BYTES = 4 * 2**20
"""Our choice: thousands of times a long recipe. What is larger is data, or a device that never ends."""
DEEPEST = 32
"""Tables and lists within one another. Our choice: template arguments are nested a few deep, and each level is a call
of every reader and writer behind."""
LARGEST_INTEGER = 2**63 - 1
"""Source: TOML 1.0, section Integer: 64 bits, signed."""


def beyond_limits(values: Mapping[str, Any]) -> list[Problem]:
    """Each value that cannot be held, by its dotted path, not checked any further."""
    return list(_walked(values))


def _walked(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Iterative: a value may be nested deeper than Python calls."""
    waiting: list[tuple[str, Any, int]] = [("", values, 0)]
    while waiting:
        path, value, depth = waiting.pop()
        if depth > DEEPEST:
            yield Problem(_top(path), f"is nested more than {DEEPEST} deep")
        elif isinstance(value, Mapping):
            for key, inner in reversed([*value.items()]):
                if problem := _unheld(str(key)):
                    yield Problem(path or "the recipe", f"has a key that {problem}")
                waiting.append((f"{path}.{key}" if path else str(key), inner, depth + 1))
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}[{place}]", inner, depth + 1) for place, inner in reversed([*enumerate(value)])]
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            yield Problem(path, "is a number of more than 64 bits")
        elif isinstance(value, str) and (problem := _unheld(value)):
            yield Problem(path, problem)


def _unheld(text: str) -> str:
    if "\0" in text:
        return "holds the character U+0000, which no file name can"
    if not _is_unicode(text):
        return "is not Unicode text; a path that is not UTF-8 can stand in no recipe: rename it"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _top(path: str) -> str:
    """The field of a place deep inside it."""
    return ".".join(path.partition("[")[0].split(".")[:2])
