"""What is wrong with a request, in the shape in which OpenAI's API says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from tutelage.errors import TutelageError


class Problem(Exception):  # noqa: N818 - the words of the API's own errors follow
    """A request that gets no reply.

    Args:
        status: of HTTP.
        message: one or two sentences.
        param: the field it is about.
        code: short and stable, as OpenAI has it where it has one.
        kind: OpenAI's `type`.
        retry_after: seconds after which the same request may do better.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind, self.retry_after = kind, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def bad_field(param: str, message: str, *, code: str | None = None) -> Problem:
    """A field that cannot be taken as it is."""
    return Problem(400, message, param=param, code=code)


def of_fields(errors: Sequence[ErrorDetails]) -> Problem:
    """The first that pydantic found wrong with a request's fields."""
    error = errors[0]
    param = ".".join(str(part) for part in error["loc"]) or None
    if error["type"] == "extra_forbidden":
        return Problem(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if error["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return Problem(400, message, param=param, code="missing_required_parameter")
    code = "invalid_type" if error["type"].endswith("_type") else "invalid_value"
    return Problem(400, f"Invalid value for '{param}': {error['msg']}.", param=param, code=code)


def of_error(error: TutelageError, param: str | None, *, status: int = 400) -> Problem:
    """One of our own errors, which a request led to."""
    parts = [error.what, error.found, f"expected {error.expected}" if error.expected else None, error.fix]
    return Problem(status, "; ".join(part for part in parts if part), param=param)
