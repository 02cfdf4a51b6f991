"""Jinja's filters as a chat template may use them: metered, and keeping the origin of characters where they can.

Each takes the context first, which is also what stops Jinja from running them while it compiles. Filters that only
pick or look (`length`, `first`, `default`, ...) stay Jinja's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import FilterArgumentError
from jinja2.filters import FILTERS, do_title, make_attrgetter
from jinja2.runtime import Context
from jinja2.utils import pass_context
from markupsafe import Markup

from tutelage.render.chat_template.limits import ITEM_CHARACTERS, MAX_SLOW_CHARACTERS, NODE_CHARACTERS, Meter, T
from tutelage.render.chat_template.string_formatting import percent
from tutelage.render.chat_template.traced_json import traced_json
from tutelage.render.chat_template.tracing import TracedMarkup, TracedText, cut_at, escaped, joined, runs_of

Filter = Callable[..., Any]

_WORD_BEGINNING = re.compile(r"[-\s({\[<]+")
_LARGEST_PRECISION = 1_000
_LARGEST_NUMBER_TEXT = 10_000


def _meter(context: Context) -> Meter:
    meter: Meter = context.meter  # type: ignore[attr-defined]  # sandbox.py gives each context its meter
    return meter


@pass_context
def to_json(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes < > & for HTML, which no server's template does."""
    meter = _meter(context)
    characters, depth = meter.shape(value)
    margin = len(indent) if isinstance(indent, str) else max(indent or 0, 0)
    between = sum(map(len, separators)) if separators else 0
    meter.allow(characters + (margin * (depth + 1) + between) * (characters // NODE_CHARACTERS))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    meter.built(len(text))
    if not meter.tracing:
        return text
    return traced_json(
        value, text, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@pass_context
def _trim(context: Context, value: Any, chars: str | None = None) -> str:
    return _counted(context, _soft(context, value).strip(chars))


@pass_context
def _upper(context: Context, value: Any) -> str:
    return _counted(context, _soft(context, value).upper())


@pass_context
def _lower(context: Context, value: Any) -> str:
    return _counted(context, _soft(context, value).lower())


@pass_context
def _capitalize(context: Context, value: Any) -> str:
    return _counted(context, _soft(context, value).capitalize())


@pass_context
def _title(context: Context, value: Any) -> str:
    text = _text(context, value)
    titled = do_title(text)
    if _meter(context).tracing:
        traced = joined("", [word[0].upper() + word[1:].lower() for word in cut_at(text, _WORD_BEGINNING)])
        titled = traced if traced == titled else titled
    return _counted(context, titled)


@pass_context
def _string(context: Context, value: Any) -> str:
    return _soft(context, value)


@pass_context
def _safe(context: Context, value: Any) -> Markup:
    if isinstance(value, Markup):
        return value
    text = _text(context, value)
    return TracedMarkup(text) if _meter(context).tracing else Markup(text)  # noqa: S704 the template says so


@pass_context
def _escape(context: Context, value: Any) -> Markup:
    return _counted(context, escaped(_soft(context, value)))


@pass_context
def _force_escape(context: Context, value: Any) -> Markup:
    return _counted(context, escaped(_text(context, value)))


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    meter = _meter(context)
    separator, items = _text(context, d), meter.listed(value)
    if attribute is not None:
        items = list(map(make_attrgetter(context.environment, attribute), items))
    pieces = [meter.printed(item) for item in items]
    meter.allow(sum(map(len, pieces)) + len(separator) * len(pieces))
    if context.eval_ctx.autoescape:
        return _counted(context, str(FILTERS["join"](context.eval_ctx, items, d)))
    return _counted(context, joined(separator, pieces) if meter.tracing else str(separator).join(pieces))


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = _text(context, s), _text(context, old), _text(context, new)
    if len(new) > len(old):
        occurrences = text.count(old) if count is None or count < 0 else min(count, len(text) + 1)
        _meter(context).allow(len(text) + occurrences * (len(new) - len(old)))
    if _meter(context).tracing and not isinstance(text, Markup):
        text = TracedText(text, runs_of(text))
    return _counted(context, text.replace(old, new, -1 if count is None else count))


@pass_context
def _indent(context: Context, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    meter = _meter(context)
    lines = meter.charged((s + "\n").splitlines())
    margin = len(width) if isinstance(width, str) else width
    meter.allow(len(s) + (margin + 1) * len(lines))
    space = width if isinstance(width, str) else " " * width
    space = Markup(space) if isinstance(s, Markup) else space  # noqa: S704 as jinja2 does
    shifted = [space + line if (first if index == 0 else blank or line) else line for index, line in enumerate(lines)]
    if isinstance(s, Markup):
        return _counted(context, Markup("\n").join(shifted))
    if not meter.tracing:
        return _counted(context, "\n".join(shifted))
    breaks = [full_line[len(line) :] for full_line, line in zip(s.splitlines(True), lines, strict=False)]
    pieces = [shifted[0]]
    for line, ended in zip(shifted[1:], breaks, strict=False):
        pieces += [ended if ended == "\n" else "\n", line]
    return _counted(context, joined("", pieces))


@pass_context
def _center(context: Context, value: Any, width: int = 80) -> str:
    _meter(context).allow(width)
    return _counted(context, _soft(context, value).center(width))


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        return str(FILTERS["format"]("", *args, **kwargs))  # Jinja's own words for this mistake
    return percent(_meter(context), _soft(context, value), kwargs or args)


@pass_context
def _list(context: Context, value: Any) -> list[Any]:
    return _meter(context).listed(value)


@pass_context
def _sum(context: Context, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    meter = _meter(context)
    items = meter.listed(iterable)
    if attribute is not None:
        items = list(map(make_attrgetter(context.environment, attribute), items))
    total = sum((), start)
    for item in items:
        total = meter.charged(total + item)
    return total


@pass_context
def _batch(context: Context, value: Any, linecount: int, fill_with: Any = None) -> Any:
    if fill_with is not None:
        _meter(context).allow(linecount * ITEM_CHARACTERS)
    return _meter(context).loop(FILTERS["batch"](_meter(context).loop(value), linecount, fill_with))


@pass_context
def _slice(context: Context, value: Any, slices: int, fill_with: Any = None) -> Any:
    return _meter(context).loop(FILTERS["slice"](context.eval_ctx, _meter(context).listed(value), slices, fill_with))


@pass_context
def _int(context: Context, value: Any, default: int = 0, base: int = 10) -> int:
    if isinstance(value, str) and len(value) > _LARGEST_NUMBER_TEXT:
        _meter(context).overrun(f"a number of {len(value):,} digits", f"at most {_LARGEST_NUMBER_TEXT:,} digits")
    number: int = FILTERS["int"](value, default, base)
    return number


@pass_context
def _round(context: Context, value: float, precision: int = 0, method: Any = "common") -> float:
    if isinstance(precision, int) and abs(precision) > _LARGEST_PRECISION:
        _meter(context).overrun(f"rounding to {precision:,} digits", f"at most {_LARGEST_PRECISION:,} digits")
    rounded: float = FILTERS["round"](value, precision, method)
    return rounded


@pass_context
def _truncate(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    try:
        text: str = FILTERS["truncate"](context.environment, value, *args, **kwargs)
    except AssertionError as error:  # how jinja2 refuses lengths that cannot be
        raise FilterArgumentError(str(error)) from error
    return _counted(context, text)


def _counted(context: Context, value: T) -> T:
    return _meter(context).charged(value)


def _text(context: Context, value: Any) -> str:
    """As `str(value)`."""
    return value if type(value) is str else _meter(context).printed(value)


def _soft(context: Context, value: Any) -> str:
    """As jinja2's `soft_str`: safe text stays marked as safe."""
    return value if isinstance(value, str) else _meter(context).printed(value)


def _lazy(name: str) -> Filter:
    """A filter that hands out its items one by one."""
    plain = FILTERS[name]

    @pass_context
    def counted(context: Context, *args: Any, **kwargs: Any) -> Any:
        first = context.environment if name == "unique" else context
        return _meter(context).loop(plain(first, *args, **kwargs))

    return counted


def _comparing(name: str) -> Filter:
    """A filter that compares items with each other."""
    plain = FILTERS[name]

    @pass_context
    def counted(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        items = value if isinstance(value, Mapping) else meter.listed(value)
        meter.allow(meter.size(items))
        first = () if name == "dictsort" else (context.environment,)
        return meter.charged(plain(*first, items, *args, **kwargs))

    return counted


def _slow(name: str, first: Callable[[Context], tuple[Any, ...]]) -> Filter:
    """A filter whose time or output can grow faster than its input; no chat template has much for it."""
    plain = FILTERS[name]

    @pass_context
    def counted(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        characters = meter.size((value, args, kwargs))
        if characters > MAX_SLOW_CHARACTERS:
            meter.overrun(f"{characters:,} characters for {name}", f"at most {MAX_SLOW_CHARACTERS:,} characters")
        return meter.charged(plain(*first(context), value, *args, **kwargs))

    return counted


def _nothing(_: Context) -> tuple[Any, ...]:
    return ()


def _environment(context: Context) -> tuple[Any, ...]:
    return (context.environment,)


def _evaluation(context: Context) -> tuple[Any, ...]:
    return (context.eval_ctx,)


def metered_filters() -> dict[str, Filter]:
    """Those that can build, copy or compare; by Jinja's names."""
    return {
        "tojson": to_json,
        "trim": _trim,
        "upper": _upper,
        "lower": _lower,
        "capitalize": _capitalize,
        "title": _title,
        "string": _string,
        "safe": _safe,
        "e": _escape,
        "escape": _escape,
        "forceescape": _force_escape,
        "join": _join,
        "replace": _replace,
        "indent": _indent,
        "center": _center,
        "format": _format,
        "list": _list,
        "sum": _sum,
        "batch": _batch,
        "slice": _slice,
        "int": _int,
        "round": _round,
        "truncate": _truncate,
        **{name: _lazy(name) for name in ("map", "select", "reject", "selectattr", "rejectattr", "unique")},
        **{name: _comparing(name) for name in ("sort", "groupby", "dictsort", "min", "max")},
        **{name: _slow(name, _nothing) for name in ("pprint", "striptags", "urlencode")},
        **{name: _slow(name, _environment) for name in ("wordwrap",)},
        **{name: _slow(name, _evaluation) for name in ("urlize", "xmlattr")},
    }
