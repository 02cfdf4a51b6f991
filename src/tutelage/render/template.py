"""The chat template as a server runs it: Jinja in an immutable sandbox with a frozen clock.

Source for the environment (trim and lstrip blocks, loop controls, tojson, raise_exception, strftime_now,
pass-through generation blocks): the chat-template chapter of the transformers documentation.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.errors import TemplateError
from tutelage.types import Message


class TemplateRefusal(ValueError):  # noqa: N818 a refusal is the template's answer, not a fault
    """The template itself raised: it does not accept these messages."""


class _GenerationBlock(Extension):
    """Accepts `{% generation %}` and renders its body unchanged: the mask comes from the proof, not from markers."""

    tags = {"generation"}  # noqa: RUF012 the jinja2 interface

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes < > & for HTML, which no server's template does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the Jinja text.
        tools_source: another Jinja text, for conversations with tools; None uses `source` for them too.
        named_tokens: `bos_token` and the like, given to the template as variables.
        date: the day that `strftime_now` believes it is; the same in every run.
        arguments: further template variables, such as `enable_thinking`.
        name: where the text came from, for errors.

    Raises:
        TemplateError: the text is not a template.
    """

    def __init__(
        self,
        source: str,
        *,
        tools_source: str | None = None,
        named_tokens: Mapping[str, str],
        date: datetime.date = datetime.date(2026, 1, 1),
        arguments: Mapping[str, Any] | None = None,
        name: str = "chat template",
    ) -> None:
        self.source = source
        self.name = name
        self.arguments = {**named_tokens, **(arguments or {})}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlock, loopcontrols],
            autoescape=False,
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        midday = datetime.datetime.combine(date, datetime.time(12))
        environment.globals["strftime_now"] = midday.strftime
        self.tools_source = tools_source
        self._template = _compiled(environment, source, name)
        self._tools_template = self._template if tools_source is None else _compiled(environment, tools_source, name)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The text a server would make of `messages`.

        Raises:
            TemplateRefusal: the template raised, or could not handle the messages.
        """
        try:
            template = self._tools_template if tools else self._template
            return template.render(
                **{**self.arguments, **(arguments or {})},
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=generation_prompt,
            )
        except TemplateRefusal:
            raise
        except (jinja2.TemplateError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise TemplateRefusal(f"{type(error).__name__}: {error}") from error
        except RecursionError as error:
            raise TemplateRefusal(f"{type(error).__name__}: {error}") from error

    def sha256(self) -> str:
        """Hash of the template's text, both of them where there are two."""
        return hashlib.sha256((self.source + (self.tools_source or "")).encode()).hexdigest()


def _compiled(environment: ImmutableSandboxedEnvironment, source: str, name: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            "The chat template does not parse",
            where=f"{name}, line {error.lineno}",
            found=error.message,
            expected="a Jinja chat template",
            fix="compare it with the model's own chat_template.jinja",
        ) from error


def as_template_sees(message: Message) -> dict[str, Any]:
    """The mapping a server hands to the template for one message; absent fields stay absent."""
    seen: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.reasoning is not None:
        seen["reasoning_content"] = message.reasoning
    if message.tool_calls:
        seen["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            | ({"id": call.id} if call.id is not None else {})
            for call in message.tool_calls
        ]
    if message.name is not None:
        seen["name"] = message.name
    if message.tool_call_id is not None:
        seen["tool_call_id"] = message.tool_call_id
    return seen
