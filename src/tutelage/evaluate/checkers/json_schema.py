"""Is a reply JSON, and is it what a JSON Schema describes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from tutelage.errors import DependencyError
from tutelage.evaluate.checkers.checker import Checker
from tutelage.types import Prompt


def decoded(reply: str) -> Any:
    """The JSON value that `reply` is, with nothing around it.

    Raises:
        ValueError: it is none. NaN and the infinities are none either.
    """
    try:
        return json.loads(reply, parse_constant=_refuse_constant)
    except RecursionError as error:  # a model that loops can open brackets without end
        raise ValueError("nested too deep") from error


def is_json(reply: str) -> bool:
    """Whether `reply` is one JSON value and nothing else."""
    try:
        decoded(reply)
    except ValueError:
        return False
    return True


def schema_check(schema: Mapping[str, Any] | bool) -> Callable[[str], bool]:
    """A function that says whether a reply is JSON of this schema.

    The draft is the one that `$schema` names, else 2020-12. `format` is not checked, as the standard has it unless
    asked. Nothing is fetched: a `$ref` leads into the schema itself or to a draft's own.

    Args:
        schema: decoded.

    Returns:
        Its function raises ValueError where a `$ref` leads nowhere.

    Raises:
        DependencyError: jsonschema is not there.
        ValueError: not a JSON Schema.
    """
    try:
        import jsonschema
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import EMPTY_REGISTRY
    except ImportError as error:
        raise DependencyError(
            "Checks of the kind json_schema need a package that is not installed",
            where="evaluate.general",
            found=str(error),
            expected="jsonschema 4.23 or newer",
            fix="pip install 'tutelage[json-schema]'",
        ) from error
    draft = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        draft.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.message}") from error
    registry: Registry[Any] = EMPTY_REGISTRY  # given, as without one jsonschema fetches what a $ref names
    validator = draft(schema, registry=registry)

    def fits(reply: str) -> bool:
        try:
            value = decoded(reply)
        except ValueError:
            return False
        try:
            return bool(validator.is_valid(value))
        except Unresolvable as error:
            raise ValueError(f"a $ref leads nowhere: {error}") from error

    return fits


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _json(_: Prompt, reply: str) -> float:
    return float(is_json(reply))


JSON_CHECKERS = (Checker("json", _json, unusable=lambda _: None),)
