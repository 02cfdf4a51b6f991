"""The row shapes that people bring: read once from the facts beside this file, one file a family."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from tutelage.formats.row_shapes.conditions import Condition, condition

FAMILIES: Final = (
    "vendors", "exports", "tracing", "instructions", "conversations", "reasoning", "agents", "preferences",
    "evaluation_sets",
)  # fmt: skip
"""The files of facts, in the order of the list that they follow."""

_PACKAGE: Final = "tutelage.formats.row_shapes"


@dataclass(frozen=True, slots=True)
class RowShape:
    """What is known of one shape.

    Attributes:
        name: what `--format` takes.
        number: its place in docs/formats_shapes.md.
        title: what people call it.
        family: the file of its facts.
        trap: what a loader easily gets wrong without an error.
        source: where it was seen.
        needs: what a row of it holds, all of it.
        without: what speaks against it.
        reader: the function that makes a row in a base form of it, `module.function` or a function of the family's own
            module; empty where there is none.
        base: the base shape it is read by as it stands; empty where it has a reader or is refused.
        refuse: why it is not read; empty where it is.
        fix: what to do instead.
        several: its reader gives several conversations of a row.
        gather: the function that makes rows in a base form of a file of rows; empty where each row is one by itself.
        alone: a row with any other column is of another shape.
        keys: the columns that it needs, by their whole names.
        endings: of columns that it needs, the ends of their names.
        unwanted_keys: the columns that speak against it by being there.
    """

    name: str
    number: int
    title: str
    family: str
    trap: str
    source: str
    needs: tuple[Condition, ...] = ()
    without: tuple[Condition, ...] = ()
    reader: str = ""
    base: str = ""
    refuse: str = ""
    fix: str = ""
    several: bool = False
    gather: str = ""
    alone: bool = False
    keys: frozenset[str] = field(init=False)
    endings: frozenset[str] = field(init=False)
    unwanted_keys: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", frozenset(need.key for need in self.needs if not need.ending))
        object.__setattr__(self, "endings", frozenset(need.ending for need in self.needs if need.ending))
        is_column = [len(unwanted.steps) == 1 and unwanted.text == unwanted.key for unwanted in self.without]
        columns = [unwanted.key for unwanted, alone in zip(self.without, is_column, strict=True) if alone]
        object.__setattr__(self, "unwanted_keys", frozenset(columns))

    def may_fit(self, columns: frozenset[str]) -> bool:
        """Whether a row with values in these columns and no others can be of this shape."""
        if not self.keys <= columns or (self.alone and columns != self.keys):
            return False
        if not all(any(column.endswith(ending) for column in columns) for ending in self.endings):
            return False
        return self.unwanted_keys.isdisjoint(columns)

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row holds all that the shape needs, and nothing that speaks against it."""
        return all(need.holds(row) for need in self.needs) and not any(bad.holds(row) for bad in self.without)

    @property
    def outcome(self) -> str:
        """What becomes of its rows, in a few words."""
        if self.refuse:
            return "refused"
        if self.base:
            return f"read as {self.base}"
        if self.gather:
            return "read, rows of a file put together"
        return "read, several conversations a row" if self.several else "read"

    @property
    def columns_text(self) -> str:
        """The columns that it is known by, for a sentence."""
        return ", ".join(dict.fromkeys(f"`{need.key}`" for need in self.needs))


@cache
def row_shapes() -> Mapping[str, RowShape]:
    """All shapes by name, in the order of their numbers."""
    shapes = [
        RowShape(
            **facts
            | {
                "family": family,
                "needs": tuple(condition(text) for text in facts.get("needs", ())),
                "without": tuple(condition(text) for text in facts.get("without", ())),
            }
        )
        for family in FAMILIES
        for facts in _facts(family)
    ]
    by_name = {shape.name: shape for shape in sorted(shapes, key=lambda shape: shape.number)}
    assert len(by_name) == len(shapes), "two shapes of one name"
    return MappingProxyType(by_name)


def _facts(family: str) -> list[dict[str, Any]]:
    path = files(_PACKAGE).joinpath(f"{family}.toml")
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["shape"]
    return entries


@cache
def function_of(family: str, name: str) -> Callable[..., Any]:
    """The function that a family's facts name, as `module.function` or a function of the family's own module."""
    module_name, _, function_name = name.rpartition(".")
    function: Callable[..., Any] = getattr(
        importlib.import_module(f"{_PACKAGE}.{module_name or family}"), function_name
    )
    return function
