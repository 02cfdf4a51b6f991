"""A dropped row -> one setting, or one change of the data, with which its turn is proven: tried before it is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tutelage.render.forms import ReasoningField, form_of
from tutelage.render.template import ChatTemplate, TemplateRefusal
from tutelage.render.tokenizer import NAMED_TOKENS
from tutelage.types import Conversation, Drop, Message, Proven

if TYPE_CHECKING:
    from tutelage.render.proof import Renderer

Try = Callable[["Renderer", Sequence[Conversation]], list[Proven | Drop]]

_NOT_ARGUMENTS = frozenset({*NAMED_TOKENS, "raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum"})
_INDEX = re.compile(r"message (\d+)")
_BY_ARGUMENTS = (
    *("no_reasoning", "reasoning_not_in_reply", "content_not_in_reply", "tool_call_not_in_reply"),
    *("prompt_not_a_prefix", "foreign_text_in_reply"),
)
_BY_POLICY = ("no_reasoning", "prompt_not_a_prefix", "control_token_in_text", "no_stop_token")
_FIELDS: tuple[ReasoningField, ...] = ("reasoning_content", "reasoning", "thinking", "content")
MOST_MESSAGES = 64
"""Longer rows are not tried anew. Our choice: a way out is found with short ones."""
PROBES = (
    ({"role": "user", "content": "a"},),
    ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
)


@dataclass(frozen=True, slots=True)
class Way:
    """What to do, in words, and the renderer and row to try it with."""

    words: str
    renderer: Renderer
    row: Conversation


def with_way_out(renderer: Renderer, conversation: Conversation, drop: Drop, prove: Try) -> Drop:
    """The drop, with a way out in its sentence where one of a few proves the turn that was not proven."""
    row, last = _up_to_the_turn(conversation, drop)
    if row is None:
        return drop
    alone = replace(renderer, turns="last" if last else renderer.turns)
    for way in _ways(alone, row, drop.reason):
        if isinstance(prove(way.renderer, [way.row])[0], Proven):
            return replace(drop, detail=f"{drop.detail}; the turn is proven with {way.words}")
    return drop


def moving_arguments(template: ChatTemplate) -> tuple[tuple[str, bool], ...]:
    """Arguments of a template, and their values, that change what it writes for a short conversation.

    Those whose names speak of reasoning come first.
    """
    names = sorted(template.variables - _NOT_ARGUMENTS, key=lambda name: ("think" not in name, name))
    plain = _probed(template, {})
    return tuple(
        (name, value)
        for name in names
        for value in (True, False)
        if (texts := _probed(template, {name: value})) != plain and None not in texts
    )


def _probed(template: ChatTemplate, arguments: dict[str, Any]) -> tuple[str | None, ...]:
    texts: list[str | None] = []
    for messages in PROBES:
        try:
            asks = len(messages) == 1
            texts.append(template.render(messages, generation_prompt=asks, arguments=arguments))
        except TemplateRefusal:
            texts.append(None)
    return tuple(texts)


def _up_to_the_turn(conversation: Conversation, drop: Drop) -> tuple[Conversation | None, bool]:
    """The row up to the turn that was not proven, and whether that is known."""
    if drop.reason not in {*_BY_ARGUMENTS, *_BY_POLICY} or len(conversation.messages) > MOST_MESSAGES:
        return None, False
    index = _INDEX.match(drop.detail)
    if index is None or drop.reason == "control_token_in_text":
        return conversation, False
    return replace(conversation, messages=conversation.messages[: int(index[1]) + 1]), True


def _ways(renderer: Renderer, row: Conversation, reason: str) -> Iterator[Way]:
    if reason in ("no_reasoning", "prompt_not_a_prefix"):
        yield Way('render.empty_reasoning = "close"', replace(renderer, empty_reasoning="close"), row)
    elif reason == "control_token_in_text":
        yield Way('render.control_tokens = "escape"', replace(renderer, control_tokens="escape"), row)
    elif reason == "no_stop_token":
        yield Way('render.missing_stop = "append"', replace(renderer, missing_stop="append"), row)
    if reason not in _BY_ARGUMENTS:
        return
    for name, given in renderer.moving_arguments:
        words = f"render.template_arguments = {{{name} = {json.dumps(given)}}}"
        yield Way(words, renderer, replace(row, template_arguments={**row.template_arguments, name: given}))
    if reason == "reasoning_not_in_reply":
        yield from _other_places(renderer, row)


def _other_places(renderer: Renderer, row: Conversation) -> Iterator[Way]:
    """Reasoning in another field, or in the content."""
    for field in _FIELDS:
        if form_of(renderer.template, field).writes_reasoning:
            yield Way(f'render.reasoning_field = "{field}"', replace(renderer, reasoning_field=field), row)
    moved = tuple(_inline(one) for one in row.messages)
    yield Way("the reasoning in the content, as <think>...</think>", renderer, replace(row, messages=moved))


def _inline(message: Message) -> Message:
    if not (message.reasoning or "").strip():
        return message
    thought = (message.reasoning or "").strip()
    return replace(message, reasoning=None, content=f"<think>\n{thought}\n</think>\n\n{message.content or ''}")
