"""The kinds of checks that hold a reply against an answer: values, a number, JSON, a JSON Schema, tests of code."""

from __future__ import annotations

import ast
from fractions import Fraction
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator

from tutelage.evaluate.check_model import CheckModel
from tutelage.evaluate.checkers.code import run_reply
from tutelage.evaluate.checkers.json_schema import is_json, schema_check
from tutelage.evaluate.checkers.numbers import final_number
from tutelage.evaluate.checkers.sandbox import Limits
from tutelage.evaluate.checkers.timed import fits

MOST_SECONDS = 600


class Equals(CheckModel):
    """The reply is one of the values, and nothing else."""

    kind: Literal["equals"]
    values: Annotated[list[str], Field(min_length=1)]
    ignore_case: bool = False

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        found, values = text, [value.strip() for value in self.values]
        if self.ignore_case:
            found, values = text.casefold(), [value.casefold() for value in values]
        return found in values


class Number(CheckModel):
    """The reply ends with this number, or one at most `tolerance` away."""

    kind: Literal["number"]
    value: Annotated[int | float, Field(allow_inf_nan=False)]
    tolerance: Annotated[int | float, Field(ge=0, allow_inf_nan=False)] = 0

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        number = final_number(text)
        # By their digits: 0.1 is meant, and not the nearest fraction of a power of 2.
        return number is not None and abs(number - Fraction(str(self.value))) <= Fraction(str(self.tolerance))


class Json(CheckModel):
    """The reply is one JSON value, and nothing else."""

    kind: Literal["json"]

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return is_json(text)


class JsonSchema(CheckModel):
    """The reply is JSON that the schema describes, and nothing else."""

    kind: Literal["json_schema"]
    described: dict[str, Any] | bool = Field(alias="schema")  # pydantic's models have a method of that name

    @field_validator("described")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any] | bool) -> dict[str, Any] | bool:
        schema_check(schema)
        return schema

    def passes(self, text: str) -> bool:
        """Look at a stripped reply.

        Raises:
            ValueError: a reference of the schema leads nowhere.
            TimeoutError: a pattern in it takes too long.
        """
        return fits("json_schema", self.described, text)


class Code(CheckModel):
    """Python in the reply passes these tests, apart from this machine."""

    kind: Literal["code"]
    tests: Annotated[str, Field(min_length=1)]
    seconds: Annotated[int | float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)] = Limits().wall_seconds
    _isolated: bool = PrivateAttr(default=True)  # no field: a set of data must not choose it

    @field_validator("tests")
    @classmethod
    def _compiles(cls, tests: str) -> str:
        try:
            ast.parse(tests)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"not Python: {error}") from error
        return tests

    def with_limits_only(self) -> Code:
        """The same check, with nothing between the code and what this user may do but its limits."""
        copied = self.model_copy()
        copied._isolated = False
        return copied

    def passes(self, text: str) -> bool:
        """Look at a stripped reply.

        Raises:
            EngineError: the system does not permit to isolate it.
        """
        limits = Limits(wall_seconds=float(self.seconds), cpu_seconds=max(Limits().cpu_seconds, ceil(self.seconds)))
        return run_reply(text, self.tests, limits=limits, isolated=self._isolated).ending == "finished"
