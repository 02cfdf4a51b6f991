"""Turns what is wrong with a recipe into one error that lists every problem with its field and line."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tutelage.config.naming import did_you_mean, section_types
from tutelage.config.settings import CONTRADICTION, Settings, contradictions
from tutelage.errors import ConfigError

MESSAGES = {
    "bool_type": "should be true or false",
    "dict_type": "should be a table",
    "finite_number": "should be a finite number",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "list_type": "should be a list of texts",
    "string_type": 'should be a text in quotes, such as "this"',
    "string_too_short": "should not be empty",
    "too_short": "should not be empty",
    "string_pattern_mismatch": "should be one folder name, without / or \\",
    "string_unicode": "should be Unicode text; a path that is not UTF-8 can stand in no recipe: rename it",
}
"""Our words for pydantic's error types; types not listed keep pydantic's own."""
LISTS_OF_NUMBERS = {"evaluate.measure_at"}
"""Fields that take numbers; all other lists are of texts."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field (a dotted path)."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values came from, to point at.

    Attributes:
        where: the file, or words for it.
        lines: line in the file (from 1) by dotted path, for those known.
        overridden: dotted paths that an override has set.
    """

    where: str
    lines: Mapping[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)

    def line(self, path: str) -> int | None:
        """The line of a field or list item, where the file is what set it."""
        field_path = path.partition("[")[0]
        return None if field_path in self.overridden else self.lines.get(field_path)

    def remark(self, path: str) -> str:
        """A closing remark on where the value of a field was set; empty where that is not known."""
        if path.partition("[")[0] in self.overridden:
            return " (from an override)"
        line = self.line(path)
        return "" if line is None else f" (line {line})"


def problems_in(values: Mapping[str, Any], error: ValidationError) -> list[Problem]:
    """Everything wrong with `values`, contradictions between its good fields included, each field once.

    Args:
        values: the nested mapping that failed.
        error: how it failed.
    """
    texts: dict[str, list[str]] = {}
    broken: set[str] = set()
    for detail in error.errors(include_url=False):
        if detail["type"] == CONTRADICTION:
            continue
        broken.add(".".join(str(phrase) for phrase in detail["loc"][:2]))
        for problem in _problems_of(_dotted_path(detail["loc"], values), detail):
            texts.setdefault(problem.path, []).append(problem.text)
    # A value that fits no branch of a union fails once for each: say the value once, and the innermost place only.
    problems = [
        Problem(path, " or ".join([phrases[0], *(phrase.rpartition(", should be ")[2] for phrase in phrases[1:])]))
        for path, phrases in texts.items()
        if not any(other_path.startswith(f"{path}[") for other_path in texts)
    ]
    for contradiction in contradictions(_valid_settings(values, broken), ignore=broken):
        problems.append(Problem(contradiction.paths[0], contradiction.problem))
    return problems


def raise_problems(problems: list[Problem], origin: Origin) -> None:
    """Raise one ConfigError for all problems; do nothing where there are none.

    Raises:
        ConfigError: there is at least one problem.
    """
    if not problems:
        return
    count = len(problems)
    listing = [f"{problem.path}: {problem.text}{origin.remark(problem.path)}" for problem in problems]
    line = origin.line(problems[0].path) if count == 1 else None
    raise ConfigError(
        f"{count} problem{'s' if count > 1 else ''} in {origin.where}",
        where=origin.where if line is None else f"{origin.where}:{line}",
        found=listing[0] if count == 1 else "".join(f"\n    - {entry}" for entry in listing),
        expected="known fields, each with a value that it accepts, and no two that contradict each other",
        fix="correct what is listed above; `tutelage train --explain all` describes every field",
    )


def _problems_of(path: str, detail: ErrorDetails) -> list[Problem]:
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        return _unknown_field(path, value)
    if detail["type"] == "missing":
        required = section_types()[path].model_fields.items() if path in section_types() else ()
        names = [f"{path}.{name}" for name, inner in required if inner.is_required()]
        return [Problem(name, "is missing and has no default") for name in names or [path]]
    if detail["type"] == "model_type":
        return [Problem(path, f"is {_toml_text(value)}, should be a table: a line [{path}] with its fields below")]
    text = MESSAGES.get(detail["type"])
    if detail["type"] == "list_type" and path in LISTS_OF_NUMBERS:
        text = "should be a list of numbers, such as [0.25, 0.5]"
    if detail["type"] == "less_than_equal" and isinstance(most := detail.get("ctx", {}).get("le"), float):
        text = f"should be at most {most:g}"
    if text is None:
        text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("'", '"')
    if detail["type"] == "literal_error" and isinstance(value, str):
        known = re.findall(r'"([^"]*)"', text)
        near = difflib.get_close_matches(value.lower(), known, n=1)
        text += f'; did you mean "{near[0]}"?' if near else ""
    if detail["type"] == "list_type" and isinstance(value, str):
        text += f", such as [{_toml_text(value)}]"
    return [Problem(path, f"is {_toml_text(value)}, {text}")]


def _unknown_field(path: str, value: object) -> list[Problem]:
    """One problem for an unknown key; for an unknown section one for each of its keys."""
    if "." not in path and isinstance(value, Mapping) and value:
        return [
            Problem(f"{path}.{key}", f"there is no section [{path}]; {did_you_mean(f'{path}.{key}')}") for key in value
        ]
    return [Problem(path, f"is not a known field; {did_you_mean(path)}")]


def _dotted_path(location: tuple[int | str, ...], values: Any) -> str:
    """`("data", "train", 0)` as `data.train[0]`.

    Args:
        location: where in `values`, with pydantic's tags for the branches of a union, which are left out: they lead to
            the same value.
        values: what failed.
    """
    text, last = "", len(location) - 1
    for index, step in enumerate(location):
        if isinstance(step, int):
            text += f"[{step}]"
            values = values[step] if isinstance(values, list) and step < len(values) else None
        elif isinstance(values, Mapping):  # a key that is missing is the last part
            assert step in values or index == last, "only a missing key is not in the table"
            text += f".{step}" if text else step
            values = values.get(step)
    return text


def _toml_text(value: object) -> str:
    """A value as TOML writes it, shortened; as Python writes it where TOML cannot."""
    try:
        text = tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")
    except (TypeError, AttributeError):
        text = reprlib.repr(value)
    if isinstance(value, Mapping) or "\n" in text:
        text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _valid_settings(values: Mapping[str, Any], broken: set[str]) -> Settings:
    """Settings, unchecked, from the fields that are valid on their own; defaults stand in for the others."""
    sections: dict[str, Any] = {}
    for name, section in section_types().items():
        section_values = values.get(name, {})
        valid_values = {}
        if isinstance(section_values, Mapping):
            valid_values = {
                key: value
                for key, value in section_values.items()
                if key in section.model_fields and f"{name}.{key}" not in broken
            }
        sections[name] = section.model_construct(None, **valid_values)
    return Settings.model_construct(None, **sections)
