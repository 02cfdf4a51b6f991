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


def without_filled_nulls(arguments: Mapping[str, Any], schema: Any, *, as_written: bool) -> dict[str, Any]:
    """The arguments of a call without the nulls that stand for an argument which is not given.

    A null is meant where the tool's own schema has that property, or one for further properties that takes null.

    Args:
        arguments: as the row has them.
        schema: the JSON Schema of the tool's parameters; None where it is not known.
        as_written: keep what no schema speaks of; right for arguments that are JSON text, into which nothing is filled.
    """
    return _without_filled(arguments, schema, schema, as_written)


def _without_filled(arguments: Mapping[str, Any], schema: Any, root: Any, as_written: bool) -> dict[str, Any]:
    subschemas = _subschemas(schema, root)
    object_schemas = [subschema for subschema in subschemas if isinstance(subschema.get("properties"), dict)]
    # A table of any names has a schema for its values alone.
    object_schemas += [
        {"properties": {}, "additionalProperties": subschema["additionalProperties"]}
        for subschema in subschemas
        if subschema.get("additionalProperties") and not isinstance(subschema.get("properties"), dict)
    ]
    additional_schemas = [
        subschema["additionalProperties"] for subschema in object_schemas if subschema.get("additionalProperties")
    ]
    remaining: dict[str, Any] = {}
    for key, value in arguments.items():
        definitions = [
            subschema["properties"][key]
            for subschema in object_schemas
            if isinstance(subschema["properties"].get(key), dict)
        ]
        if value is not None:
            remaining[key] = _nested_without_filled(
                value, {"anyOf": definitions or additional_schemas}, root, as_written
            )
        elif definitions or (
            as_written
            if not object_schemas
            else _additional_takes_null(additional_schemas, root, as_written=as_written)
        ):
            remaining[key] = None
    return remaining


def _additional_takes_null(additional_schemas: list[Any], root: Any, *, as_written: bool) -> bool:
    """Whether a property that is not listed may be null; "anything" says so only of what nothing was filled into."""
    return any(as_written if schema is True else _takes_null(schema, root) for schema in additional_schemas)


def _nested_without_filled(value: Any, schema: Any, root: Any, as_written: bool) -> Any:
    if isinstance(value, dict):
        return _without_filled(value, schema, root, as_written)
    if isinstance(value, list):
        items = {"anyOf": [subschema["items"] for subschema in _subschemas(schema, root) if "items" in subschema]}
        return [_nested_without_filled(item, items, root, as_written) for item in value]
    return value


def _subschemas(schema: Any, root: Any) -> list[Mapping[str, Any]]:
    """The schema and all that it refers to or offers as alternatives at the same place."""
    pending: list[Any] = [schema]
    subschemas: dict[int, Mapping[str, Any]] = {}  # by identity: a schema that refers to itself comes up again
    for _ in range(_REFERENCES_MAX):
        new_subschemas = [
            subschema for subschema in pending if isinstance(subschema, dict) and id(subschema) not in subschemas
        ]
        if not new_subschemas:
            break
        subschemas |= {id(subschema): subschema for subschema in new_subschemas}
        pending = [
            _resolve_reference(subschema["$ref"], root)
            for subschema in new_subschemas
            if isinstance(subschema.get("$ref"), str)
        ]
        for key in ("anyOf", "oneOf", "allOf"):
            pending += [
                alternative
                for subschema in new_subschemas
                if isinstance(subschema.get(key), list)
                for alternative in subschema[key]
            ]
    return list(subschemas.values())


def _resolve_reference(reference: str, root: Any) -> Any:
    node = root
    for name in reference.removeprefix("#/").split("/"):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _takes_null(definition: Any, root: Any) -> bool:
    for subschema in _subschemas(definition, root):
        json_types = subschema.get("type")
        enum_values = subschema.get("enum")
        is_unconstrained = (
            not {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "properties"} & subschema.keys()
        )
        if (
            is_unconstrained
            or json_types == "null"
            or (isinstance(json_types, list) and "null" in json_types)
            or (isinstance(enum_values, list) and None in enum_values)
            or subschema.get("nullable") is True
            or subschema.get("default", ...) is None
            or subschema.get("const", ...) is None
        ):
            return True
    return False
