"""What no setting may be, whatever its field: numbers, depths and texts that nothing behind the front door can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.config.problems import Problem

MAX_RECIPE_BYTES = 4 * 2**20
"""Our choice: thousands of times a long recipe. What is larger is data, or a device that never ends."""
MAX_DEPTH = 32
"""Tables and lists within one another. Our choice: template arguments are nested a few deep, and each level is a call
of every reader and writer behind."""
MAX_INTEGER = 2**63 - 1
"""Source: TOML 1.0, section Integer: 64 bits, signed."""


def limit_problems(values: Mapping[str, Any]) -> list[Problem]:
    """Each value that cannot be held, by its dotted path, not checked any further."""
    return list(_walk(values))


def _walk(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Iterative: a value may be nested deeper than Python calls."""
    pending: list[tuple[str, Any, int]] = [("", values, 0)]
    while pending:
        path, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            yield Problem(_top_field(path), f"is nested more than {MAX_DEPTH} deep")
        elif isinstance(value, Mapping):
            for key, inner in reversed([*value.items()]):
                if problem := _text_problem(str(key)):
                    yield Problem(path or "the recipe", f"has a key that {problem}")
                pending.append((f"{path}.{key}" if path else str(key), inner, depth + 1))
        elif isinstance(value, list | tuple):
            pending += [(f"{path}[{index}]", inner, depth + 1) for index, inner in reversed([*enumerate(value)])]
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            yield Problem(path, "is a number of more than 64 bits")
        elif isinstance(value, str) and (problem := _text_problem(value)):
            yield Problem(path, problem)


def _text_problem(text: str) -> str:
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


def _top_field(path: str) -> str:
    """The field of a place deep inside it."""
    return ".".join(path.partition("[")[0].split(".")[:2])
