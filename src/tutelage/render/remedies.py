"""A dropped row -> one setting, or one change of the data, with which its turn is proven: tried before it is said."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from msgspec import structs

from tutelage.render.chat_template.message_format import ReasoningField, message_format_of
from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal
from tutelage.render.rewrites import with_reasoning_in_field
from tutelage.render.special_tokens import SpecialTokens
from tutelage.render.tokenizer import NAMED_TOKENS
from tutelage.types import Conversation, Drop, Message, Proven

if TYPE_CHECKING:
    from tutelage.render.renderer import Renderer

Prove = Callable[["Renderer", Sequence[Conversation]], list[Proven | Drop]]

_NOT_ARGUMENTS = frozenset({*NAMED_TOKENS, "raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum"})
_INDEX = re.compile(r"message (\d+)")
_BY_ARGUMENTS = (
    *("no_reasoning", "reasoning_not_in_reply", "content_not_in_reply", "tool_call_not_in_reply"),
    *("prompt_not_a_prefix", "foreign_text_in_reply"),
)
_BY_POLICY = {
    "no_reasoning": ("empty_reasoning", "close"),
    "prompt_not_a_prefix": ("empty_reasoning", "close"),
    "control_token_in_text": ("control_tokens", "escape"),
    "no_stop_token": ("missing_stop", "append"),
}
_FIELDS: tuple[ReasoningField, ...] = ("reasoning_content", "reasoning", "thinking", "content")
ROWS_WITH_ALL_REMEDIES = 8
"""Of the rows that are proven together and dropped for one reason. Our choice: ten ways for each row of a file that
drops whole would take ten times as long as the proof."""
MAX_MESSAGES = 64
"""Longer rows are not tried anew. Our choice: a way out is found with short ones."""
PROBES = (
    ({"role": "user", "content": "a"},),
    ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do, in words, and the renderer and row to try it with."""

    text: str
    renderer: Renderer
    row: Conversation


class Remedies:
    """The ways out of one renderer's drops; renderers with another setting are made once.

    Args:
        renderer: its settings are where each way begins.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._variants: dict[tuple[tuple[str, str], ...], Renderer] = {}

    @cached_property
    def _fields(self) -> tuple[ReasoningField, ...]:
        return tuple(field for field in _FIELDS if message_format_of(self._renderer.template, field).writes_reasoning)

    def named(
        self, conversations: Sequence[Conversation], outcomes: Sequence[Proven | Drop], prove: Prove
    ) -> list[Proven | Drop]:
        """The outcomes, each drop with a way out in its sentence where one of a few proves the turn that was not.

        Rows that are dropped for one reason mostly have one way out. All ways are tried for the first of them, and for
        the others those that were ways out of an earlier row here: what is said of a row depends on the rows that are
        proven together with it, and on nothing else.
        """
        rows_tried: Counter[str] = Counter()
        remedies_by_reason: dict[str, set[str]] = {}
        results: list[Proven | Drop] = []
        for conversation, outcome in zip(conversations, outcomes, strict=True):
            row, turns = None, self._renderer.turns
            if isinstance(outcome, Drop):
                row, turns = _through_failed_turn(conversation, outcome, turns)
            if row is None or not isinstance(outcome, Drop):
                results.append(outcome)
                continue
            worked = remedies_by_reason.setdefault(outcome.reason, set())
            rows_tried[outcome.reason] += 1
            candidates = None if rows_tried[outcome.reason] <= ROWS_WITH_ALL_REMEDIES else worked
            remedy = self._first_remedy(row, outcome.reason, turns, candidates, prove)
            if remedy is None:
                results.append(outcome)
            else:
                worked.add(remedy)
                results.append(structs.replace(outcome, detail=f"{outcome.detail}; the turn is proven with {remedy}"))
        return results

    def _first_remedy(
        self,
        row: Conversation,
        reason: str,
        turns: Literal["all", "last"],
        candidates: Container[str] | None,
        prove: Prove,
    ) -> str | None:
        """The words of the first way, among those given, that proves the row; None where none does."""
        for remedy in self._candidates(row, reason, turns) if candidates is None or candidates else ():
            if (candidates is None or remedy.text in candidates) and isinstance(
                prove(remedy.renderer, [remedy.row])[0], Proven
            ):
                return remedy.text
        return None

    def _variant(self, turns: Literal["all", "last"], name: str = "", value: str = "") -> Renderer:
        key = (("turns", turns), (name, value))
        if key not in self._variants:
            changed: dict[str, Any] = {"turns": turns} | ({name: value} if name else {})
            self._variants[key] = replace(self._renderer, **changed)
        return self._variants[key]

    def _candidates(self, row: Conversation, reason: str, turns: Literal["all", "last"]) -> Iterator[Remedy]:
        if reason in _BY_POLICY:
            name, value = _BY_POLICY[reason]
            yield Remedy(f'render.{name} = "{value}"', self._variant(turns, name, value), row)
        if reason == "stop_inside_reply":
            yield from self._without_one_stop(row, turns)
        if reason not in _BY_ARGUMENTS:
            return
        for name, flag in self._renderer.effective_arguments:
            text = f"render.template_arguments = {{{name} = {json.dumps(flag)}}}"
            arguments = {**row.template_arguments, name: flag}
            yield Remedy(text, self._variant(turns), structs.replace(row, template_arguments=arguments))
        if reason == "reasoning_not_in_reply":
            for field in self._fields:
                text = f'render.reasoning_field = "{field}"'
                yield Remedy(text, self._variant(turns, "reasoning_field", field), row)
            moved = tuple(_reasoning_in_content(message) for message in row.messages)
            text = "the reasoning in the content, as <think>...</think>"
            yield Remedy(text, self._variant(turns), structs.replace(row, messages=moved))
        elif self._renderer.form.writes_reasoning:
            fields = tuple(with_reasoning_in_field(message) for message in row.messages)
            text = "the reasoning of the content in a field of its own"
            yield Remedy(text, self._variant(turns), structs.replace(row, messages=fields))
        for text, messages in _other_messages(row.messages, reason):
            yield Remedy(text, self._variant(turns), structs.replace(row, messages=messages))

    def _without_one_stop(self, row: Conversation, turns: Literal["all", "last"]) -> Iterator[Remedy]:
        """For templates that write a stop token inside a turn: a model that is to write on must not stop there."""
        tokenizer = self._renderer.tokenizer
        if SpecialTokens(tokenizer).first_spelled(row) is not None:
            return  # then the words of the row are at fault
        for token in sorted(tokenizer.stop_ids) if len(tokenizer.stop_ids) > 1 else ():
            key = (("turns", turns), ("without", str(token)))
            if key not in self._variants:
                fewer = replace(tokenizer, stop_ids=tokenizer.stop_ids - {token})
                self._variants[key] = replace(self._renderer, turns=turns, tokenizer=fewer)
            text = f"{tokenizer.spelling(token)!r} left out of eos_token_id in generation_config.json"
            yield Remedy(text, self._variants[key], row)


def effective_arguments(template: ChatTemplate) -> tuple[tuple[str, bool], ...]:
    """Arguments of a template, and their values, that change what it writes for a short conversation.

    Those whose names speak of reasoning come first.
    """
    names = sorted(template.variables - _NOT_ARGUMENTS, key=lambda name: ("think" not in name, name))
    plain = _probe_texts(template, {})
    return tuple(
        (name, value)
        for name in names
        for value in (True, False)
        if (texts := _probe_texts(template, {name: value})) != plain and None not in texts
    )


def _probe_texts(template: ChatTemplate, arguments: dict[str, Any]) -> tuple[str | None, ...]:
    texts: list[str | None] = []
    for messages in PROBES:
        try:
            awaits_reply = len(messages) == 1
            texts.append(template.render(messages, generation_prompt=awaits_reply, arguments=arguments))
        except TemplateRefusal:
            texts.append(None)
    return tuple(texts)


def _through_failed_turn(
    conversation: Conversation, drop: Drop, turns: Literal["all", "last"]
) -> tuple[Conversation | None, Literal["all", "last"]]:
    """The row up to the turn that was not proven, and which of its turns to train; None where nothing is tried."""
    if (
        drop.reason not in {*_BY_ARGUMENTS, *_BY_POLICY, "stop_inside_reply"}
        or len(conversation.messages) > MAX_MESSAGES
    ):
        return None, turns
    index = _INDEX.match(drop.detail)
    if index is None or drop.reason == "control_token_in_text":
        return conversation, turns
    return structs.replace(conversation, messages=conversation.messages[: int(index[1]) + 1]), "last"


def _reasoning_in_content(message: Message) -> Message:
    if not (message.reasoning or "").strip():
        return message
    thought = (message.reasoning or "").strip()
    return structs.replace(message, reasoning=None, content=f"<think>\n{thought}\n</think>\n\n{message.content or ''}")


def _other_messages(messages: tuple[Message, ...], reason: str) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """What else the data could hold, for what the template never writes; the last message is the turn."""
    *earlier, last = messages
    if reason == "tool_call_not_in_reply":
        yield "nested arguments as JSON text", tuple(map(_with_flat_arguments, messages))
    if reason == "prompt_not_a_prefix":
        if earlier and earlier[-1].role == last.role == "assistant" and not earlier[-1].tool_calls:
            joined = "\n\n".join(content for content in (earlier[-1].content, last.content) if content)
            yield "the reply before it in the same message", (*earlier[:-1], structs.replace(last, content=joined))
        bare = (structs.replace(message, content=None) if message.tool_calls else message for message in earlier)
        yield "no words beside the calls before it", (*bare, last)
    if reason == "reasoning_not_in_reply":
        without = (structs.replace(with_reasoning_in_field(message), reasoning=None) for message in messages)
        yield "its reasoning left out", tuple(without)


def _with_flat_arguments(message: Message) -> Message:
    calls = (
        structs.replace(call, arguments={name: _as_text(value) for name, value in call.arguments.items()})
        for call in message.tool_calls
    )
    return structs.replace(message, tool_calls=tuple(calls))


def _as_text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
