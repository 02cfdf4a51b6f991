"""The language of task files: Jinja in its sandbox, strict, so that a name without a value is an error.

Why Jinja: a template needs lists, conditions and JSON, which `str.format` has not; names can be checked before any row
is read; it is a dependency already. The sandbox keeps a task file from running code. It does not bound time, as the
limits of chat templates do: a task file is written, or at least read, by who runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

OPTIONS = "options_list"
"""What a template calls the block of options, where it wants it elsewhere than at its end."""
Values = Mapping[str, Any]


class TemplateProblem(Exception):  # noqa: N818 - what is wrong with a text of a task file; it becomes an error with its place
    """A text that is no template, or that a row's values do not fit."""


class TaskTemplate:
    """A compiled template.

    Args:
        text: in Jinja.

    Raises:
        TemplateProblem: it is none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._template = _environment().from_string(text)
            self.names = frozenset(meta.find_undeclared_variables(_environment().parse(text)))
        except TemplateError as error:
            raise TemplateProblem(str(error)) from error

    def render(self, values: Values) -> str:
        """The text for these values, without blank lines around it and space behind it.

        Raises:
            TemplateProblem: a name has no value, or an operation fails.
        """
        return str(_safely(lambda: self._template.render(values))).strip("\n").rstrip()


class TaskExpression:
    """A compiled expression, such as `label != '-'`; arguments and errors as for `TaskTemplate`."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._expression = _environment().compile_expression(text, undefined_to_none=False)
            self.names = frozenset(meta.find_undeclared_variables(_environment().parse("{{ (" + text + ") }}")))
        except TemplateError as error:
            raise TemplateProblem(str(error)) from error

    def holds(self, values: Values) -> bool:
        """Whether it is true for these values.

        Raises:
            TemplateProblem: a name has no value, or an operation fails.
        """
        return bool(_safely(lambda: self._expression(values)))


def _safely(rendered: Callable[[], Any]) -> Any:
    try:
        return rendered()
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        raise TemplateProblem(f"{type(error).__name__}: {error}") from error


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["tojson"] = _json
    return environment


def _json(value: Any, indent: int | None = None) -> str:
    """JSON as people read it: Jinja's own filter escapes what HTML would take for tags."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
