"""The names the world uses for roles, fields and files: read once from `names.json`, so that lists stay out of code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, Final, Literal

from tutelage.errors import ConfigError
from tutelage.formats.row_shapes.catalog import row_shapes
from tutelage.types import Role

FileKind = Literal["json_lines", "json_document", "csv", "tsv", "parquet", "arrow", "text"]

TABLE: Final[dict[str, Any]] = json.loads(files("tutelage.formats").joinpath("names.json").read_text("utf-8"))

ROLES: Final[dict[str, Role]] = TABLE["roles"]
CALL_ROLES: Final = frozenset(TABLE["call_roles"])
TURN_KEYS: Final[dict[str, tuple[str, ...]]] = {key: tuple(names) for key, names in TABLE["turn_keys"].items()}
MARKS: Final[dict[str, str]] = TABLE["marks"]
TURN_LISTS: Final[tuple[str, ...]] = tuple(TABLE["turn_lists"])
TOOL_SENTENCES: Final[tuple[str, ...]] = tuple(TABLE["tool_sentences"])
NO_INPUT: Final = frozenset(TABLE["no_input"])
BLOCK_TYPES: Final[dict[str, str]] = TABLE["block_types"]
CALL_KEYS: Final[dict[str, tuple[str, ...]]] = {key: tuple(names) for key, names in TABLE["call_keys"].items()}
RESULT_KEYS: Final[dict[str, tuple[str, ...]]] = {key: tuple(names) for key, names in TABLE["result_keys"].items()}
PART_TYPES: Final[dict[str, str]] = TABLE["part_types"]
MEDIA_TYPES: Final = frozenset(TABLE["media_types"])
PART_KEYS: Final[tuple[str, ...]] = tuple(TABLE["part_keys"])
ENDINGS: Final[dict[str, FileKind]] = TABLE["endings"]
KIND_TITLES: Final[dict[FileKind, str]] = TABLE["kind_titles"]
HUB_ENDINGS: Final[tuple[str, ...]] = tuple(TABLE["hub_endings_by_preference"])
COMPRESSIONS: Final[tuple[str, ...]] = tuple(TABLE["compressions"])
WRAPPER_KEYS: Final = frozenset(TABLE["wrapper_keys"])
MAGIC_FIXES: Final[dict[str, str]] = TABLE["magic_fixes"]
NOT_DATA: Final = frozenset(TABLE["not_data"])
NOT_DATA_STEMS: Final[tuple[str, ...]] = tuple(TABLE["not_data_stems"])
SPLIT_WORDS: Final[tuple[str, ...]] = tuple(TABLE["split_words"])
MAGIC: Final[dict[bytes, str]] = {bytes.fromhex(start): title for start, title in TABLE["magic"].items()}

SHAPES: Final = ("alpaca", "sharegpt", "messages", "prompt_completion", "text")
SHAPES_BY_PRIORITY: Final[tuple[str, ...]] = tuple(TABLE["shapes"])
"""A row that fits several shapes takes the first: turns say more than a prompt, a prompt more than a text."""

METADATA: Final = "metadata"
"""A column with an object of what a row says of itself, as curation writes it."""

METADATA_COLUMNS: Final = frozenset({METADATA, *(name for names in TABLE["metadata"].values() for name in names)})
LIST_HOLDERS: Final = frozenset({METADATA, *TURN_LISTS})
"""Columns in which a row may list which of its turns are trained."""

COLUMN_KEYS: Final = ("prompt", "response", "system", "input", "messages", "text", "tools")


@dataclass(frozen=True, slots=True)
class Fields:
    """For each field of a row, the column names that may hold it, the most telling first."""

    messages: tuple[str, ...]
    conversations: tuple[str, ...]
    instruction: tuple[str, ...]
    input: tuple[str, ...]
    prompt: tuple[str, ...]
    response: tuple[str, ...]
    text: tuple[str, ...]
    system: tuple[str, ...]
    history: tuple[str, ...]
    tools: tuple[str, ...]
    template_arguments: tuple[str, ...]
    verdict: tuple[str, ...]
    masked_role: tuple[str, ...]
    media: tuple[str, ...]
    marks: tuple[str, ...] = tuple(name for name, sense in MARKS.items() if sense in {"trained", "weight", "hidden"})
    side_columns: frozenset[str] = field(init=False)
    """The columns that may stand beside a conversation."""

    rare_columns: frozenset[str] = field(init=False)
    """Those of them that are no tools."""

    beside: frozenset[str] = field(init=False)
    """The side columns, and those for what a row says of itself and its turns: most rows have none of them."""

    weight_columns: frozenset[str] = field(init=False)
    """Those of them that may say how much the whole row is trained."""

    def __post_init__(self) -> None:
        names = ("tools", "template_arguments", "verdict", "masked_role", "media", "system", "history", "marks")
        object.__setattr__(self, "side_columns", frozenset(name for kind in names for name in getattr(self, kind)))
        object.__setattr__(self, "beside", self.side_columns | METADATA_COLUMNS | LIST_HOLDERS)
        object.__setattr__(self, "rare_columns", self.side_columns.difference(self.tools))
        object.__setattr__(self, "weight_columns", frozenset(self.marks))

    def required(self, shape: str) -> list[tuple[str, ...]]:
        """The groups of columns of which a row of this shape holds at least one each."""
        return [getattr(self, name) for name in TABLE["shapes"][shape]]

    def used(self, shape: str) -> frozenset[str]:
        """The columns that a row of this shape is made from."""
        columns = frozenset(column for name in TABLE["uses"][shape] for column in getattr(self, name))
        return columns if shape == "text" else columns.union(self.marks)

    def all_columns(self) -> frozenset[str]:
        """Every column name that means something."""
        return frozenset(name for kind in TABLE["fields"] for name in getattr(self, kind))


DEFAULT_FIELDS: Final = Fields(**{kind: tuple(names) for kind, names in TABLE["fields"].items()})


def fields_for(columns: Mapping[str, str] | None) -> Fields:
    """The field names, with the columns that the user named in place of the known ones.

    Raises:
        ConfigError: a key that is not one of COLUMN_KEYS.
    """
    if not columns:
        return DEFAULT_FIELDS
    replacements: dict[str, Any] = {}
    for key, column in columns.items():
        if key not in COLUMN_KEYS:
            raise ConfigError(
                f"'{key}' is not a field that a column can be named for",
                where="columns",
                found=key + nearest(key, COLUMN_KEYS),
                expected=", ".join(COLUMN_KEYS),
                fix="write --columns prompt=KEY,response=KEY",
            )
        replacements[key] = (column,)
        if key == "prompt":
            replacements["instruction"] = (column,)
    named_columns = set(columns.values())
    replacements["marks"] = tuple(name for name in DEFAULT_FIELDS.marks if name not in named_columns)
    return replace(DEFAULT_FIELDS, **replacements)


def shape_for(shape: str, columns: Mapping[str, str] | None) -> str:
    """The shape the settings ask for: a name from SHAPES or the catalog, or "auto" where the rows decide.

    Raises:
        ConfigError: an unknown shape, columns that make no shape, or columns that contradict `shape`.
    """
    known = row_shapes().get(shape)
    if shape != "auto" and shape not in SHAPES and known is None:
        raise ConfigError(
            f"There is no shape '{shape}'",
            where="shape",
            found=shape + nearest(shape, [*SHAPES, *row_shapes()]),
            expected="auto, " + ", ".join(SHAPES) + ", or another of docs/formats_shapes.md",
            fix="leave --format out and the rows decide",
        )
    if known is not None and known.base:
        shape, known = known.base, None
    if known is not None and columns:
        raise ConfigError(
            f"Columns cannot be named for the shape '{shape}'",
            where="shape and columns",
            found=", ".join(sorted(columns)),
            expected="columns for " + ", ".join(SHAPES),
            fix="leave out --columns, or --format",
        )
    named_columns = set(columns or ())
    column_shape = _shape_of_columns(named_columns)
    if column_shape == "auto" or shape in {"auto", column_shape}:
        return shape if column_shape == "auto" else column_shape
    if {column_shape, shape} == {"alpaca", "prompt_completion"}:
        return shape
    raise ConfigError(
        f"The columns make the shape '{column_shape}', but the shape asked for is '{shape}'",
        where="shape and columns",
        fix=f"leave out --format, or name columns for '{shape}'",
    )


def _shape_of_columns(named_columns: set[str]) -> str:
    main_groups = [keys for keys in ({"messages"}, {"text"}, {"prompt", "response", "input"}) if keys & named_columns]
    if not main_groups:
        return "auto"
    if len(main_groups) > 1 or (main_groups[0] >= {"prompt"} and not named_columns >= {"prompt", "response"}):
        raise ConfigError(
            "These columns do not make a conversation",
            where="columns",
            found=", ".join(sorted(named_columns)),
            expected="prompt and response (input besides, if there is one), or messages, or text",
            fix="write --columns prompt=KEY,response=KEY",
        )
    if "messages" in named_columns or "text" in named_columns:
        return "messages" if "messages" in named_columns else "text"
    return "alpaca" if "input" in named_columns else "prompt_completion"


def nearest(name: str, candidates: Sequence[str]) -> str:
    """` (nearest: 'x')` for a misspelt name, or nothing."""
    matches = get_close_matches(name.lower(), candidates, n=1, cutoff=0.6)
    return f" (nearest: '{matches[0]}')" if matches else ""
