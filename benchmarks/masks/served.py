"""What a server feeds: texts by transformers' own chat templating, in each accepted way of writing a message.

Nothing here comes from `tutelage.render`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from tutelage.types import Conversation, Message

REFUSALS = (
    jinja2.TemplateError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    NotImplementedError,
)
"""What a template may end in when it does not accept its messages."""


@dataclass(frozen=True, slots=True)
class Way:
    """One accepted way to hand messages to a template; the same for all messages of a row.

    Attributes:
        arguments: a call's arguments as an object or as its JSON text.
        empty: how an assistant turn without words has its content: null, an empty text, or no key at all.
        content: text, or a list with one text part.
        reasoning: the field's name, or "inline": in the content, between think tags.
    """

    arguments: Literal["object", "json"] = "object"
    empty: Literal["null", "text", "absent"] = "text"
    content: Literal["text", "parts"] = "text"
    reasoning: str = "reasoning_content"

    def __str__(self) -> str:
        return f"arguments={self.arguments} empty={self.empty} content={self.content} reasoning={self.reasoning}"


INLINE = {
    "inline": "<think>\n{reasoning}\n</think>\n\n{content}",
    "inline, tight": "<think>{reasoning}</think>{content}",
}


def ways_for(conversation: Conversation) -> list[Way]:
    """Every way that makes a difference for this row, the usual one first.

    transformers hands `reasoning_content`, `thinking` and `reasoning` to the template under each other's names, except
    that only `reasoning` itself fills `reasoning`.
    """
    messages = conversation.messages
    calls = any(message.tool_calls for message in messages)
    wordless = any(message.role == "assistant" and not message.content for message in messages)
    reasons = any(message.reasoning for message in messages)
    return [
        Way(arguments, empty, content, reasoning)  # type: ignore[arg-type] # product of the literals
        for content, reasoning, arguments, empty in product(
            ("text", "parts"),
            ("reasoning_content", "reasoning", *INLINE) if reasons else ("reasoning_content",),
            ("object", "json") if calls else ("object",),
            ("text", "null", "absent") if wordless else ("text",),
        )
    ]


def as_served(message: Message, way: Way) -> dict[str, Any]:
    """The mapping for one message."""
    content = message.content or ""
    seen: dict[str, Any] = {"role": message.role}
    if message.reasoning is not None:
        if way.reasoning in INLINE:
            content = INLINE[way.reasoning].format(reasoning=message.reasoning, content=content)
        else:
            seen[way.reasoning] = message.reasoning
    if content or message.role != "assistant" or way.empty == "text":
        seen["content"] = [{"type": "text", "text": content}] if way.content == "parts" else content
    elif way.empty == "null":
        seen["content"] = None
    if message.tool_calls:
        seen["tool_calls"] = [
            {
                "type": "function",
                **({} if tool_call.id is None else {"id": tool_call.id}),
                "function": {
                    "name": tool_call.name,
                    "arguments": dict(tool_call.arguments)
                    if way.arguments == "object"
                    else json.dumps(dict(tool_call.arguments), ensure_ascii=False),
                },
            }
            for tool_call in message.tool_calls
        ]
    if message.name is not None:
        seen["name"] = message.name
    if message.tool_call_id is not None:
        seen["tool_call_id"] = message.tool_call_id
    return seen


@dataclass(frozen=True, slots=True)
class Refusal:
    """The template did not render."""

    why: str


@dataclass
class Server:
    """Renders conversations with one template; each text is made once.

    The texts do not depend on the vocabulary, as `bos_token` and `eos_token` are spelled alike in all of them.
    """

    tokenizer: PreTrainedTokenizerFast
    _texts: dict[tuple[int, int, bool, Way], str | Refusal] = field(default_factory=dict)
    _kept: list[Conversation] = field(default_factory=list)

    def keep(self, conversation: Conversation) -> Conversation:
        """The conversation, kept alive: texts are known by its identity."""
        self._kept.append(conversation)
        return conversation

    def text(self, conversation: Conversation, count: int, way: Way, *, prompt: bool) -> str | Refusal:
        """The rendering of the first `count` messages, with the generation prompt or without."""
        key = (id(conversation), count, prompt, way)
        if key not in self._texts:
            messages = [as_served(message, way) for message in conversation.messages[:count]]
            self._texts[key] = render(
                self.tokenizer,
                messages,
                tools=[dict(tool) for tool in conversation.tools],
                arguments=conversation.template_arguments,
                prompt=prompt,
            )
        return self._texts[key]


def render(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, Any] | None = None,
    prompt: bool,
) -> str | Refusal:
    """One rendering, by the function that `apply_chat_template` calls.

    That method itself leaves out keys whose value is null and refuses an empty list of messages; servers and earlier
    releases hand both on, so the ways "null" and "absent" are told apart here.
    """
    try:
        texts, _ = render_jinja_template(
            conversations=[list(messages)],
            tools=list(tools) or None,
            chat_template=tokenizer.chat_template,
            add_generation_prompt=prompt,
            **{**tokenizer.special_tokens_map, **(arguments or {})},
        )
    except REFUSALS as error:
        return Refusal(f"{type(error).__name__}: {error}")
    return str(texts[0])
