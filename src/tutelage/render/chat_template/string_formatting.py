"""Formatting with % and with braces: no wider than the limits, with the origin of what is filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from jinja2.environment import Environment
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import pass_context
from markupsafe import Markup

from tutelage.render.chat_template.limits import Meter
from tutelage.render.chat_template.tracing import joined

_PERCENT = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.)", re.DOTALL)
_NESTED_KEY = re.compile(r"%\([^)]*\(")
_NUMBER = re.compile(r"\d+")


def percent(meter: Meter, template: str, values: Any) -> str:
    """`template % values`."""
    if _NESTED_KEY.search(template):
        raise TypeError("a key of a format may not hold parentheses")
    fields = list(_PERCENT.finditer(template))
    each = meter.size(values)
    widths = sum(int(digits) for field in fields for digits in field.groups()[:2] if digits and digits.isdigit())
    stars = sum(field.groups()[:2].count("*") for field in fields)
    items = values if isinstance(values, tuple) else (values,)
    widest = max((abs(item) for item in items if isinstance(item, int)), default=0) if stars else 0
    meter.allow(len(template) + widths + stars * widest + each * (len(fields) if isinstance(values, Mapping) else 1))
    text: str = template % values
    meter.built(len(text))
    if not meter.tracing or isinstance(template, Markup):
        return text
    return _same_text(text, _filled(meter, template, items, fields))


def _filled(meter: Meter, template: str, items: tuple[Any, ...], fields: list[re.Match[str]]) -> list[str]:
    """The pieces of the simple case: `%s` and `%%` only."""
    pieces: list[str] = []
    position, remaining = 0, iter(items)
    for field in fields:
        pieces.append(template[position : field.start()])
        if field.group() not in ("%s", "%%"):
            return []
        pieces.append("%" if field.group() == "%%" else meter.printed(next(remaining, "")))
        position = field.end()
    return [*pieces, template[position:]]


class BraceFormat:
    """`text.format` or `text.format_map`, as a template may call it.

    Args:
        environment: decides what the fields may look at.
        template: the text with braces.
        takes_mapping: whether it is `format_map`.
    """

    def __init__(self, environment: Environment, template: str, *, takes_mapping: bool) -> None:
        self._environment, self._template, self._takes_mapping = environment, template, takes_mapping

    @pass_context
    def __call__(self, context: Context, /, *args: Any, **kwargs: Any) -> str:
        """The text with its fields filled in."""
        if self._takes_mapping:
            if kwargs or len(args) != 1:
                raise TypeError("format_map() takes exactly one argument")
            return self._formatted(context, (), args[0])
        return self._formatted(context, args, kwargs)

    def _formatted(self, context: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        meter: Meter = context.meter  # type: ignore[attr-defined]  # sandbox.py gives each context its meter
        if isinstance(self._template, Markup):
            return Markup(  # noqa: S704 what is put into it is escaped
                _EscapeFormatter(self._environment, meter).vformat(self._template, args, kwargs)
            )
        formatter = _Formatter(self._environment, meter)
        text = formatter.vformat(self._template, args, kwargs)
        meter.built(len(text))
        return _same_text(text, formatter.pieces(self._template)) if meter.tracing else text


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: Environment, meter: Meter) -> None:
        super().__init__(environment)
        self._meter = meter
        self._fields: list[str] = []

    def format_field(self, value: Any, format_spec: str) -> str:
        _allow_field(self._meter, value, format_spec)
        is_container = type(value) in (list, tuple, dict)
        field: str = self._meter.printed(value) if is_container else super().format_field(value, format_spec)
        self._meter.built(len(field))
        self._fields.append(field)
        return field

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is not None:
            self._meter.allow(self._meter.size(value))
        return super().convert_field(value, conversion)

    def pieces(self, template: str) -> list[str]:
        """What the last `vformat` wrote, piece by piece; nothing where a width is itself a field."""
        pieces: list[str] = []
        fields = iter(self._fields)
        for literal, name, specification, _ in Formatter().parse(template):
            pieces.append(literal)
            if name is not None:
                if specification and "{" in specification:
                    return []
                pieces.append(next(fields))
        return pieces


class _EscapeFormatter(SandboxedEscapeFormatter):
    def __init__(self, environment: Environment, meter: Meter) -> None:
        super().__init__(environment, escape=Markup.escape)
        self._meter = meter

    def format_field(self, value: Any, format_spec: str) -> str:
        _allow_field(self._meter, value, format_spec)
        field: str = super().format_field(value, format_spec)
        self._meter.built(len(field))
        return field


def _allow_field(meter: Meter, value: Any, specification: str) -> None:
    widths = _NUMBER.findall(specification)
    if any(len(digits) > 12 for digits in widths):
        meter.overrun("a field as wide as " + widths[0][:20], "a width within the limits")
    meter.allow(sum(map(int, widths)) + (0 if isinstance(value, str) else meter.size(value)))


def _same_text(text: str, pieces: list[str]) -> str:
    """`text` with the origins of the pieces, if they are the same text."""
    traced = joined("", pieces)
    return traced if traced == text else text
