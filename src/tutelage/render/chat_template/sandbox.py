"""The environment a chat template runs in: Jinja's immutable sandbox, metered, and able to trace.

One compiled template serves both renderings: `str`, `concat` and `~` of the generated code are those of the rendering's
meter, which keeps origins where it traces. The tree is rewritten before it is compiled, so that sums, slices and loops
pass through the meter, too; the filters that do so have a space in their names, which no template can spell.
"""

from __future__ import annotations

import datetime
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from tutelage.render.chat_template.filters import metered_filters
from tutelage.render.chat_template.limits import MAX_DEPTH, MAX_INTEGER_BITS, Limits, Meter
from tutelage.render.chat_template.string_formatting import BraceFormat, percent
from tutelage.render.chat_template.string_methods import allowed_arguments
from tutelage.render.chat_template.tracing import TracedText, runs_of

_COUNTED_LOOP, _COUNTED_VALUE, _COMPARABLE = "counted loop", "counted value", "comparable value"
_COMPARING_TESTS = (
    *("eq", "==", "equalto", "ne", "!=", "in"),
    *("lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">="),
)
MAX_SOURCE_CHARACTERS = 200_000
"""Longest template. Our choice: several times the longest of a published model; compiling it takes seconds."""
_MAX_DATE_PATTERN_CHARACTERS = 1_000
_PLAIN = frozenset({str, TracedText, dict, list, tuple, int, float, bool, type(None), LoopContext})
"""Types of which jinja2's rules look at nothing but the type and the name of the attribute."""
_MAX_CACHED = 1_000


class TemplateRefusal(ValueError):  # noqa: N818 a refusal is the template's answer, not a fault
    """The template itself raised: it does not accept these messages."""


class MeteredContext(Context):
    """A rendering's variables, and its meter."""

    meter: Meter

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002 jinja2's name
        """As jinja2 has it, with the same meter."""
        context = super().derived(locals)
        assert isinstance(context, MeteredContext)
        context.meter = self.meter
        return context


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """A server's environment with hard limits.

    Args:
        limits: of each rendering.
        date: the day that `strftime_now` believes it is.
    """

    context_class = MeteredContext
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, limits: Limits, date: datetime.date) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols], autoescape=False
        )
        self.limits = limits
        self.code_generator_class = _MeteredCode
        self.filters.update(metered_filters())
        self.filters["random"] = _random
        self.filters[_COUNTED_LOOP], self.filters[_COUNTED_VALUE] = _counted_loop, _counted_value
        self.filters[_COMPARABLE] = _comparable
        self.tests.update({name: _comparing(self.tests[name]) for name in _COMPARING_TESTS})
        self.globals["raise_exception"] = refuse
        self.globals["strftime_now"] = _Clock(date)
        self.globals["lipsum"] = _random
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace
        self._safe: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As jinja2 says, asked once for each name of a plain value: it goes through abstract classes each time."""
        key = (type(obj), attr)
        safe = self._safe.get(key)
        if safe is None:
            safe = super().is_safe_attribute(obj, attr, value)
            if type(obj) in _PLAIN and len(self._safe) < _MAX_CACHED:
                self._safe[key] = safe
        return safe

    def metered(self, source: str) -> nodes.Template:
        """The tree of `source`, with what can grow passing through the meter."""
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise ValueError(
                f"a template of {len(source):,} characters; at most {MAX_SOURCE_CHARACTERS:,} are compiled"
            )
        tree = _Metering().visit(self.parse(source))
        assert isinstance(tree, nodes.Template)
        return tree

    def concat(self, pieces: Iterable[str]) -> str:
        """What a block called by name (`self.name()`) writes, as one text."""
        text_pieces = list(pieces)
        meter = Meter(self.limits, tracing=any(isinstance(piece, TracedText) for piece in text_pieces))
        return meter.concat(text_pieces)

    def wrap_str_format(self, value: Any) -> Any:
        """`format` and `format_map` of a text, sandboxed and metered."""
        if not isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            return None
        if value.__name__ not in ("format", "format_map") or not isinstance(value.__self__, str):
            return None
        return BraceFormat(self, value.__self__, takes_mapping=value.__name__ == "format_map")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**` and `%`, after a look at the size of what they would make."""
        assert isinstance(context, MeteredContext)
        if operator == "%":
            if isinstance(left, bytes):
                raise TypeError("bytes are not formatted")
            return percent(context.meter, left, right) if isinstance(left, str) else left % right
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _allow_bits(context.meter, left.bit_length() * abs(right))
            return left**right
        return _product(context.meter, left, right)

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, counted.

        Raises:
            SecurityError: it may not be called.
        """
        assert isinstance(context, MeteredContext)
        meter = context.meter
        meter.step()
        if not self.is_safe_callable(callee):
            raise SecurityError(f"{callee!r} is not safely callable")
        if isinstance(callee, (types.BuiltinMethodType, types.MethodType)):
            receiver = callee.__self__
            if isinstance(receiver, (str, bytes, int, float, dict, list, tuple, type)):
                kwargs.pop("_loop_vars", None)
                kwargs.pop("_block_vars", None)
                return _method(meter, receiver, callee, args, kwargs)
        if type(callee) is LoopContext and args:
            args = (meter.loop(args[0]), *args[1:])
        meter.depth += 1
        if meter.depth > MAX_DEPTH:
            meter.overrun("calls inside calls without end", f"at most {MAX_DEPTH} inside each other")
        try:
            return context.call(callee, *args, **kwargs)
        finally:
            meter.depth -= 1


def refuse(message: str) -> NoReturn:
    """What templates know as `raise_exception`."""
    raise TemplateRefusal(message)


def _method(meter: Meter, receiver: Any, callee: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    name = callee.__name__
    if isinstance(receiver, (dict, list, tuple)):
        if name in ("count", "index"):
            meter.comparable(receiver)
        result = callee(*args, **kwargs)
        return meter.charged(result) if name == "copy" else result
    if isinstance(receiver, type):
        return _class_method(meter, callee, args, kwargs)
    args = allowed_arguments(meter, receiver, name, args, kwargs)
    if meter.tracing and type(receiver) is str and name in ("join", "replace"):
        # A plain text would forget where the words that are put into it came from.
        result = getattr(TracedText(receiver, runs_of(receiver)), name)(*args, **kwargs)
    else:
        result = callee(*args, **kwargs)
    return result if result is receiver else meter.charged(result)


def _class_method(meter: Meter, callee: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if callee.__name__ == "from_bytes":
        _allow_bits(meter, 8 * max((len(argument) for argument in args if isinstance(argument, bytes)), default=0))
    return meter.charged(callee(*args, **kwargs))


def _product(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _allow_bits(meter, left.bit_length() + right.bit_length())
        return left * right
    values, times = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(values, (str, bytes, list, tuple)) and isinstance(times, int):
        meter.allow(len(values) * max(times, 0))
    return meter.charged(left * right)


def _allow_bits(meter: Meter, bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        meter.overrun(f"a number of {bits:,} bits", f"at most {MAX_INTEGER_BITS:,} bits")


@pass_context
def _counted_loop(context: MeteredContext, values: Any) -> Any:
    return context.meter.loop(values)


@pass_context
def _counted_value(context: MeteredContext, value: Any) -> Any:
    return context.meter.charged(value)


@pass_context
def _comparable(context: MeteredContext, value: Any) -> Any:
    return context.meter.comparable(value)


def _comparing(test: Any) -> Callable[..., Any]:
    @pass_context
    def tested(context: MeteredContext, left: Any, right: Any) -> Any:
        return test(context.meter.comparable(left), context.meter.comparable(right))

    return tested


@pass_context
def _random(context: Context, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001 whatever it is given
    refuse("the template writes random text, which is served only once")


class _GenerationBlock(Extension):
    """Accepts `{% generation %}` and renders its body unchanged: the mask comes from the proof, not from markers."""

    tags = {"generation"}  # noqa: RUF012 the jinja2 interface

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _MeteredCode(CodeGenerator):
    """Generated code that makes text with the meter of its rendering."""

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("str = context.meter.printed")
        self.writeline("concat = context.meter.concat")
        self.writeline("str_join = context.meter.str_join")
        self.writeline("markup_join = context.meter.markup_join")
        self.writeline("escape = context.meter.escape")


class _Metering(NodeTransformer):
    """Puts the meter around loops, slices and sums."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 jinja2's name
        self.generic_visit(node)
        node.iter = _through(_COUNTED_LOOP, node.iter)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 the jinja2 interface
        self.generic_visit(node)
        return _through(_COUNTED_VALUE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 the jinja2 interface
        """What is printed is counted there; a sum needs no second look."""
        node.nodes = [
            self._inside(expression) if isinstance(expression, nodes.Add) else self.visit(expression)
            for expression in node.nodes
        ]
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802 the jinja2 interface
        """One look at the end of a chain of sums is enough: each part is smaller than the whole."""
        is_number = any(
            isinstance(side, nodes.Const) and not isinstance(side.value, str) for side in (node.left, node.right)
        )
        chain = self._inside(node)
        return chain if is_number else _through(_COUNTED_VALUE, chain)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 the jinja2 interface
        """Comparing with a text or number of the template's own is quick, and so is looking into its own lists."""
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        searches = any(operand.op in ("in", "notin") for operand in node.ops)
        if not searches and any(isinstance(side, nodes.Const) for side in sides):
            return node
        if not searches:
            node.expr = _through(_COMPARABLE, node.expr)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Literal):
                operand.expr = _through(_COMPARABLE, operand.expr)
        return node

    def _inside(self, node: nodes.Add) -> nodes.Add:
        node.left = self._inside(node.left) if isinstance(node.left, nodes.Add) else self.visit(node.left)
        node.right = self._inside(node.right) if isinstance(node.right, nodes.Add) else self.visit(node.right)
        return node


def _through(filter_name: str, node: nodes.Node) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, filter_name, [], [], None, None, lineno=node.lineno, environment=node.environment)


class _Clock:
    """`strftime_now` on a day that never changes."""

    def __init__(self, date: datetime.date) -> None:
        self._midday = datetime.datetime.combine(date, datetime.time(12))

    def __call__(self, pattern: str, /) -> str:
        if len(pattern) > _MAX_DATE_PATTERN_CHARACTERS:
            raise TemplateRefusal(f"a date pattern of {len(pattern):,} characters")
        return self._midday.strftime(pattern)


class _Dict:
    """`dict` without the insides of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` whose names never begin with an underscore: those are Python's."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *positional = args
        variables = dict(*positional, **kwargs)
        for name in variables:
            _check_name(name)
        Namespace.__init__(self, variables)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with an underscore, such as {name!r}")
