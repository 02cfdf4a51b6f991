"""A recipe at two sizes: `[size.paper]` and `[size.laptop]`, of which one is laid over what both have in common."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from tutelage.config.problems import Origin
from tutelage.errors import ConfigError

Size = Literal["paper", "laptop"]
SIZES: tuple[str, ...] = get_args(Size)
DEFAULT_SIZE = "laptop"
"""Our choice: it runs wherever the other does, and whoever meant the other has lost minutes, not a cluster's day."""
KEY = "size"


def sized(
    values: Mapping[str, Any], overrides: Sequence[str], origin: Origin
) -> tuple[dict[str, Any], list[str], Origin]:
    """The values of the chosen size, the overrides that choose none, and where each value came from.

    Args:
        values: of the recipe. `size` is a table of tables, or, in the settings of a run, the name of what was chosen.
        overrides: `section.field=value`; `size=NAME` chooses, and the last one wins.
        origin: of `values`.

    Raises:
        ConfigError: no size has that name, or the recipe has no sizes, or one that is none.
    """
    chosen = [override.partition("=")[2].strip() for override in overrides if _names_size(override)]
    others = [override for override in overrides if not _names_size(override)]
    tables = values.get(KEY)
    name = chosen[-1].strip("\"'") if chosen else DEFAULT_SIZE
    if chosen:
        _require_known(name, origin.where, what="There is no size")
    if not isinstance(tables, Mapping):
        if chosen and tables != name:
            raise ConfigError(
                "This recipe has no sizes to choose from" if tables is None else "These settings are of another size",
                where=origin.where,
                found=f"size={name}" if tables is None else f"size={name}, and size = {tables!r}",
                expected="a recipe with the tables [size.paper] and [size.laptop], such as recipes/alpaca.toml",
                fix="leave the size out",
            )
        return dict(values), others, origin
    for table in tables:
        _require_known(str(table), origin.where, what="The recipe has a size that is none:")
    table_of_size: Any = tables.get(name)
    if not isinstance(table_of_size, Mapping):
        raise ConfigError(
            f"This recipe has no table for the size '{name}'",
            where=origin.where,
            found=", ".join(f"[size.{table}]" for table in tables) or "an empty table size",
            expected=f"[size.{name}]",
            fix="write it, if only its head, or choose another size",
        )
    common = {key: value for key, value in values.items() if key != KEY}
    prefix = f"{KEY}.{name}."
    lines = {path.removeprefix(prefix): line for path, line in origin.lines.items() if path.startswith(prefix)}
    merged = _overlaid(common, table_of_size)
    merged[KEY] = name
    return merged, others, Origin(origin.where, {**origin.lines, **lines}, origin.overridden)


def _names_size(override: str) -> bool:
    return override.partition("=")[0].strip() == KEY


def _require_known(name: str, where: str, *, what: str) -> None:
    if name in SIZES:
        return
    near = difflib.get_close_matches(name.lower(), SIZES, n=1, cutoff=0.3)
    raise ConfigError(
        f"{what} '{name}'",
        where=where,
        found=name or "nothing",
        expected=" or ".join(SIZES),
        fix=f"did you mean {near[0]}?" if near else f"take one of: {', '.join(SIZES)}",
    )


def _overlaid(common: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Tables inside tables are laid over each other; every other value takes the place of the one below."""
    merged = dict(common)
    for key, value in table.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _overlaid(below, value)
        else:
            merged[key] = value
    return merged
