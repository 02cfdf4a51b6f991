"""Nulls that stand for a key which is not there: Arrow fills them in, and JSON written from it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DATA_KEYWORDS: Final = frozenset({"default", "const", "example"})
"""Keywords of JSON Schema whose value is data, of which null is a value like any other."""

_DATA_LISTS: Final = frozenset({"enum", "examples"})
"""Keywords whose value is a list of data."""

_REFERENCES_MAX: Final = 8
"""References and alternatives followed for one property; a schema may refer to itself."""


def without_nulls(value: Any) -> Any:
    """A nested value without the keys that hold null; items of a list stay."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def is_filled(schema: Any) -> bool:
    """Whether a tool's description holds a null that no description can mean: then all its nulls were filled in."""
    if isinstance(schema, list):
        return any(is_filled(item) for item in schema)
    if not isinstance(schema, dict):
        return False
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            if any(definition is None or is_filled(definition) for definition in value.values()):
                return True
        elif value is None:
            if key not in _DATA_KEYWORDS:
                return True
        elif key not in _DATA_KEYWORDS and key not in _DATA_LISTS and is_filled(value):
            return True
    return False


def meant_arguments(arguments: Mapping[str, Any], schema: Any, *, as_written: bool) -> dict[str, Any]:
    """The arguments of a call without the nulls that stand for an argument which is not given.

    A null is meant where the tool's own schema has that property, or one for further properties that takes null.

    Args:
        arguments: as the row has them.
        schema: the JSON Schema of the tool's parameters; None where it is not known.
        as_written: keep what no schema speaks of; right for arguments that are JSON text, into which nothing is filled.
    """
    return _meant(arguments, schema, schema, as_written)


def _meant(given: Mapping[str, Any], schema: Any, root: Any, as_written: bool) -> dict[str, Any]:
    parts = _alternatives(schema, root)
    objects = [part for part in parts if isinstance(part.get("properties"), dict)]
    # A table of any names has a schema for its values alone.
    objects += [
        {"properties": {}, "additionalProperties": part["additionalProperties"]}
        for part in parts
        if part.get("additionalProperties") and not isinstance(part.get("properties"), dict)
    ]
    further = [part["additionalProperties"] for part in objects if part.get("additionalProperties")]
    kept: dict[str, Any] = {}
    for key, value in given.items():
        definitions = [part["properties"][key] for part in objects if isinstance(part["properties"].get(key), dict)]
        if value is not None:
            kept[key] = _meant_inside(value, {"anyOf": definitions or further}, root, as_written)
        elif definitions or (as_written if not objects else _takes_further(further, root, as_written=as_written)):
            kept[key] = None
    return kept


def _takes_further(further: list[Any], root: Any, *, as_written: bool) -> bool:
    """Whether a property that is not listed may be null; "anything" says so only of what nothing was filled into."""
    return any(as_written if schema is True else _takes_null(schema, root) for schema in further)


def _meant_inside(value: Any, schema: Any, root: Any, as_written: bool) -> Any:
    if isinstance(value, dict):
        return _meant(value, schema, root, as_written)
    if isinstance(value, list):
        items = {"anyOf": [part["items"] for part in _alternatives(schema, root) if "items" in part]}
        return [_meant_inside(item, items, root, as_written) for item in value]
    return value


def _alternatives(schema: Any, root: Any) -> list[Mapping[str, Any]]:
    """The schema and all that it refers to or offers as alternatives at the same place."""
    waiting: list[Any] = [schema]
    all_parts: dict[int, Mapping[str, Any]] = {}  # by identity: a schema that refers to itself comes up again
    for _ in range(_REFERENCES_MAX):
        parts = [part for part in waiting if isinstance(part, dict) and id(part) not in all_parts]
        if not parts:
            break
        all_parts |= {id(part): part for part in parts}
        waiting = [_referred(part["$ref"], root) for part in parts if isinstance(part.get("$ref"), str)]
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += [inner for part in parts if isinstance(part.get(key), list) for inner in part[key]]
    return list(all_parts.values())


def _referred(reference: str, root: Any) -> Any:
    place = root
    for name in reference.removeprefix("#/").split("/"):
        place = place.get(name) if isinstance(place, dict) else None
    return place


def _takes_null(definition: Any, root: Any) -> bool:
    for part in _alternatives(definition, root):
        kind = part.get("type")
        listed = part.get("enum")
        says_nothing = not {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "properties"} & part.keys()
        if (
            says_nothing
            or kind == "null"
            or (isinstance(kind, list) and "null" in kind)
            or (isinstance(listed, list) and None in listed)
            or part.get("nullable") is True
            or part.get("default", ...) is None
            or part.get("const", ...) is None
        ):
            return True
    return False
