"""Rows of preferences as TRL reads them: a prompt, a chosen and a rejected reply, each a list of turns with a text.

All rows of a file have the same fields: where one lacks a field that another has, `datasets` fills in a null, and a
template takes a null for a value (datasets 5.2). A row's tools are JSON text, which TRL reads (`DPOTrainer`'s
`tokenize_fn`, TRL 1.16.0), as `datasets` would give each tool the fields of all; turns that call tools have no such
form, so rows with them stay out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from msgspec.structs import replace as with_fields

from tutelage.errors import DataError
from tutelage.render import Renderer
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import Unproven
from tutelage.types import Address, Conversation, Drop, Message, Role, TokenIds

FIELDS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One row.

    Attributes:
        address: where it came from.
        prompt: the turns before the reply.
        chosen: text of the better reply.
        rejected: that of the worse one; None where nobody has written it yet.
        tools: on offer, as the template is handed them.
    """

    address: Address
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def conversations(self) -> Iterator[Conversation]:
        """The prompt with each reply that is there."""
        for reply in (self.chosen, self.rejected):
            if reply is not None:
                yield Conversation((*self.prompt, Message("assistant", reply)), self.address, self.tools)


@dataclass(frozen=True, slots=True)
class RenderedReply:
    """A prompt with one reply as the run's template renders it.

    Attributes:
        conversation: as the template is handed it.
        prompt_ids: what is served.
        reply_ids: what the model must emit then, its stop token included.
        behind_ids: what the template writes behind a finished reply.
    """

    conversation: Conversation
    prompt_ids: TokenIds
    reply_ids: TokenIds
    behind_ids: TokenIds

    @property
    def tokens(self) -> int:
        """Of all of it."""
        return len(self.prompt_ids) + len(self.reply_ids) + len(self.behind_ids)


class UnusableRowError(Exception):
    """A row that TRL would train otherwise than this run did; the text says why."""


def rendered_reply(conversation: Conversation, renderer: Renderer) -> RenderedReply:
    """Its last turn as a reply.

    Raises:
        UnusableRowError: it is not proven, or TRL's two renderings, of the prompt and of the finished row, are not the
            ids that training rendered.
    """
    if len(conversation.messages) < 2 or conversation.messages[-1].role != "assistant":
        raise UnusableRowError("it does not end with a reply")
    plain = with_fields(
        conversation, messages=tuple(Message(message.role, message.content) for message in conversation.messages)
    )
    last_alone = replace(renderer, turns="last", train_on="replies")
    (outcome,) = last_alone.prove([plain])
    if isinstance(outcome, Drop):
        raise UnusableRowError(f"{outcome.reason}: training would drop it")
    conversation, example = last_alone.as_proven(plain), outcome.examples[-1]
    turn = example.turns[-1]
    expected = example.ids[: turn.reply_end]
    try:
        text = RenderedRow(conversation, renderer.template, renderer.form).render(
            len(conversation.messages), generation_prompt=False
        )
    except Unproven as finding:
        raise UnusableRowError(f"{finding.reason}: the template does not take the finished row") from finding
    finished = renderer.tokenizer.encode([text])[0]
    if finished[: len(expected)] != expected.tolist():
        raise UnusableRowError("the template writes the finished row with other ids than prompt and reply as trained")
    return RenderedReply(
        conversation,
        example.ids[: turn.prompt_end],
        example.ids[turn.prompt_end : turn.reply_end],
        np.asarray(finished[len(expected) :], dtype=np.int32),
    )


def require_plain(conversation: Conversation) -> None:
    """Refuse a row of which something is lost where it is written as roles and texts.

    Raises:
        UnusableRowError: that is so.
    """
    if conversation.is_text:
        raise UnusableRowError("it is a document")
    if any(_is_more_than_text(message) for message in conversation.messages):
        raise UnusableRowError("its turns are more than roles and texts: calls, results, reasoning or names")
    if conversation.template_arguments:
        raise UnusableRowError("it has arguments for the template of its own")
    if conversation.messages[-1].weight == 0:
        raise UnusableRowError("its last reply is not trained")


def _is_more_than_text(message: Message) -> bool:
    others = (message.reasoning, message.name, message.tool_call_id)
    return message.content is None or message.role == "tool" or bool(message.tool_calls) or others != (None,) * 3


def row_line(row: PreferenceRow, arguments: Mapping[str, Any], *, has_tools: bool = False) -> str:
    """The row as a line of JSON; a rejected reply that is missing is a null, at which TRL stops.

    Args:
        row: to write.
        arguments: of the template, of all rows.
        has_tools: some row of the file offers tools, so that all have the field.
    """
    fields: dict[str, Any] = {
        "prompt": [{"role": message.role, "content": message.content} for message in row.prompt],
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": None if row.rejected is None else [{"role": "assistant", "content": row.rejected}],
    }
    if has_tools:
        fields["tools"] = json.dumps(row.tools, ensure_ascii=False) if row.tools else None
    if arguments:
        fields["chat_template_kwargs"] = dict(arguments)
    return json.dumps(fields, ensure_ascii=False) + "\n"


def read_preferences(path: Path) -> Iterator[PreferenceRow]:
    """The rows of a file of JSON lines, as `row_line` and `tutelage prefer` write them.

    Raises:
        DataError: the file cannot be read, or a line is no such row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "The preferences cannot be read",
            where=str(path),
            found=str(error),
            expected="a file of JSON lines in UTF-8",
            fix="name the preferences.jsonl that tutelage prefer wrote",
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row(line, Address(str(path), number))


def _row(line: str, address: Address) -> PreferenceRow:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise _no_row(address, f"no JSON: {error}") from error
    if not isinstance(fields, dict) or not set(FIELDS) <= set(fields):
        missing = [name for name in FIELDS if not isinstance(fields, dict) or name not in fields]
        raise _no_row(address, f"no {', no '.join(missing)}")
    prompt = _turns(fields["prompt"], "prompt", address)
    chosen, rejected = (
        None if name == "rejected" and not fields[name] else _turns(fields[name], name, address)
        for name in ("chosen", "rejected")
    )
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns is not None and [message.role for message in turns] != ["assistant"]:
            raise _no_row(address, f"{name}: {len(turns)} turns")
    assert chosen is not None
    worse = None if rejected is None else rejected[0].content or ""
    return PreferenceRow(address, prompt, chosen[0].content or "", worse, _tools(fields.get("tools"), address))


def _tools(value: Any, address: Address) -> tuple[Mapping[str, Any], ...]:
    """A list of tools, or that as JSON text."""
    try:
        tools = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        tools = value
    if not isinstance(tools, list | None) or not all(isinstance(tool, dict) for tool in tools or ()):
        raise _no_row(address, f"tools: {json.dumps(value, ensure_ascii=False)[:60]}")
    return tuple(tools or ())


def _turns(value: Any, name: str, address: Address) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _no_row(address, f"{name}: {json.dumps(value, ensure_ascii=False)[:60]}")
    for turn in value:
        if (
            not isinstance(turn, dict)
            or turn.get("role") not in get_args(Role)
            or not isinstance(turn.get("content"), str)
        ):
            raise _no_row(address, f"{name}: {json.dumps(turn, ensure_ascii=False)[:60]}")
    return tuple(Message(turn["role"], turn["content"]) for turn in value)


def _no_row(address: Address, found: str) -> DataError:
    return DataError(
        "This line is no row of preferences",
        where=str(address),
        found=found,
        expected="prompt, chosen and rejected, each a list of turns with role and content; the replies of one turn",
        fix="name the preferences.jsonl that tutelage prefer wrote, or repair the line",
    )
