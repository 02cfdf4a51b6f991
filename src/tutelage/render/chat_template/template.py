"""The chat template as a server runs it: Jinja in an immutable sandbox with a frozen clock and hard limits.

Source for the environment (trim and lstrip blocks, loop controls, tojson, raise_exception, strftime_now,
pass-through generation blocks): the chat-template chapter of the transformers documentation.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jinja2
import numpy as np
from jinja2 import meta, nodes

from tutelage.errors import TemplateError
from tutelage.render.chat_template.limits import MAX_CHARACTERS, MAX_SECONDS, Limits, Meter
from tutelage.render.chat_template.sandbox import MeteredContext, MeteredEnvironment, TemplateRefusal
from tutelage.render.chat_template.tracing import TEMPLATE_TEXT, Source, Traced, origins, with_origins
from tutelage.types import Message

__all__ = ["ChatTemplate", "TemplateRefusal", "template_message"]

STANDARD_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the Jinja text.
        tools_source: another Jinja text, for conversations with tools; None uses `source` for them too.
        named_tokens: `bos_token` and the like, given to the template as variables.
        date: the day that `strftime_now` believes it is; the same in every run.
        arguments: further template variables, such as `enable_thinking`.
        name: where the text came from, for errors.
        max_characters: of a rendered text. Our choice: 10 million, beyond the longest contexts served today.
        max_seconds: of one rendering. Our choice: 10, where an ordinary one takes 0.0001.

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
        max_characters: int = MAX_CHARACTERS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.source = source
        self.tools_source = tools_source
        self.name = name
        self.date = date
        self.arguments = {**named_tokens, **(arguments or {})}
        self._limits = Limits(name, max_characters, max_seconds)
        self._environment = MeteredEnvironment(self._limits, date)
        self._globals = dict(self._environment.globals)
        self._template = _compiled(self._environment, source, name)
        self._tools_template = (
            self._template if tools_source is None else _compiled(self._environment, tools_source, name)
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The text a server would make of `messages`.

        Raises:
            TemplateRefusal: the template raised, or could not handle the messages.
            TemplateError: the template goes beyond `max_characters` or `max_seconds`, or loops or calls itself without
                end. This is for the whole run, not for the row: a template that does so once will do so again.
        """
        return self._run(
            {**self.arguments, **(arguments or {})},
            {
                "messages": messages,
                "tools": tools or None,
                "documents": documents or None,
                "add_generation_prompt": generation_prompt,
            },
            tracing=False,
        )

    def trace(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Traced:
        """What `render` gives, with the origin of each character.

        Where tracing meets something it cannot follow, origins are unknown; the text is that of `render` always.

        Raises:
            TemplateRefusal, TemplateError: as `render`.
        """
        text = self.render(
            messages, generation_prompt=generation_prompt, tools=tools, documents=documents, arguments=arguments
        )
        sources: list[Source] = []
        try:
            traced = self._run(
                {
                    name: with_origins(value, None, f"argument.{name}", sources)
                    for name, value in {**self.arguments, **(arguments or {})}.items()
                },
                {
                    "messages": [with_origins(message, index, "", sources) for index, message in enumerate(messages)],
                    "tools": with_origins(list(tools), None, "tools", sources) if tools else None,
                    "documents": with_origins(list(documents), None, "documents", sources) if documents else None,
                    "add_generation_prompt": generation_prompt,
                },
                tracing=True,
            )
        except (TemplateRefusal, TemplateError):
            traced = ""
        if traced != text:
            unknown = np.full(len(text), TEMPLATE_TEXT, dtype=np.int32)
            return Traced(text, tuple(sources), unknown, unknown, followed=False)
        source, offset = origins(traced)
        return Traced(text, tuple(sources), source, offset)

    def __reduce__(self) -> tuple[Callable[[str], ChatTemplate], tuple[str]]:
        """Compiled templates cannot be pickled: a worker process compiles the text again."""
        again = partial(
            ChatTemplate,
            tools_source=self.tools_source,
            named_tokens={},  # they are among the arguments
            date=self.date,
            arguments=self.arguments,
            name=self.name,
            max_characters=self._limits.characters,
            max_seconds=self._limits.seconds,
        )
        return again, (self.source,)

    @property
    def limits(self) -> Limits:
        """Hard limits of each rendering."""
        return self._limits

    def sha256(self) -> str:
        """Hash of the template's text, both of them where there are two."""
        return hashlib.sha256((self.source + (self.tools_source or "")).encode()).hexdigest()

    @cached_property
    def uses_date(self) -> bool:
        """Whether the template names `strftime_now`: then what it writes may hold `date`."""
        return any(name.name == "strftime_now" for tree in self._trees for name in tree.find_all(nodes.Name))

    @cached_property
    def variables(self) -> frozenset[str]:
        """Variables it reads and does not set, without messages, tools, documents and add_generation_prompt."""
        return (
            frozenset(name for tree in self._trees for name in meta.find_undeclared_variables(tree))
            - STANDARD_VARIABLES
        )

    @cached_property
    def message_fields(self) -> frozenset[str]:
        """Names it reads from anything: `.name`, `["name"]` and `.get("name")`."""
        names: set[str] = set()
        for tree in self._trees:
            names |= {attribute.attr for attribute in tree.find_all(nodes.Getattr)}
            keys = [item.arg for item in tree.find_all(nodes.Getitem)]
            for call in tree.find_all(nodes.Call):
                if isinstance(call.node, nodes.Getattr) and call.node.attr == "get":
                    keys += call.args[:1]
            names |= {key.value for key in keys if isinstance(key, nodes.Const) and isinstance(key.value, str)}
        return frozenset(names)

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Its own pieces of text, each once, in order: text between the tags, and texts in expressions."""
        pieces = (node for tree in self._trees for node in tree.find_all((nodes.TemplateData, nodes.Const)))
        texts = (piece.data if isinstance(piece, nodes.TemplateData) else piece.as_const() for piece in pieces)
        return tuple(dict.fromkeys(text for text in texts if isinstance(text, str)))

    @cached_property
    def _trees(self) -> list[nodes.Template]:
        return [self._environment.parse(source) for source in (self.source, self.tools_source) if source is not None]

    def _run(self, arguments: dict[str, Any], standard: dict[str, Any], *, tracing: bool) -> str:
        if clash := standard.keys() & arguments.keys():
            raise TemplateRefusal(f"a template argument is called {min(clash)!r}, as what every template is given")
        meter = Meter(self._limits, tracing=tracing)
        template = self._tools_template if standard["tools"] else self._template
        # What `template.new_context` makes, without its walks through the globals: a quarter of a short rendering.
        variables = {**self._globals, **arguments, **standard}
        context = MeteredContext(self._environment, variables, template.name, template.blocks)
        context.meter = meter
        try:
            return meter.concat(list(template.root_render_func(context)))
        except (TemplateRefusal, TemplateError):
            raise
        except (jinja2.TemplateError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise TemplateRefusal(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:  # RecursionError too: values nested too deeply
            raise TemplateRefusal(f"{type(error).__name__}: {error}") from error
        except MemoryError:
            meter.overrun("more memory than there is", "a template within its limits")


def _compiled(environment: MeteredEnvironment, source: str, name: str) -> jinja2.Template:
    try:
        return environment.from_string(environment.metered(source))
    except jinja2.TemplateSyntaxError as error:
        line, problem = error.lineno, error.message
        cause: Exception = error
    except (SyntaxError, RecursionError, ValueError, OverflowError, MemoryError) as error:
        line, problem = 1, f"{type(error).__name__}: {error}"
        cause = error
    raise TemplateError(
        "The chat template does not parse",
        where=f"{name}, line {line}",
        found=problem,
        expected="a Jinja chat template",
        fix="compare it with the model's own chat_template.jinja",
    ) from cause


def template_message(message: Message) -> dict[str, Any]:
    """The mapping a server hands to the template for one message; absent fields stay absent."""
    formatted: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.reasoning is not None:
        formatted["reasoning_content"] = message.reasoning
    if message.tool_calls:
        formatted["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            | ({"id": call.id} if call.id is not None else {})
            for call in message.tool_calls
        ]
    if message.name is not None:
        formatted["name"] = message.name
    if message.tool_call_id is not None:
        formatted["tool_call_id"] = message.tool_call_id
    return formatted
