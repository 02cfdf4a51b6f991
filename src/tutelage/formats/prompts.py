"""Rows -> prompts to be answered: the turns up to the last reply, which may be there or still have to be written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from tutelage.formats import read
from tutelage.formats.names import DEFAULT_FIELDS, ROLES, TURN_KEYS, Fields, fields_for
from tutelage.formats.rawrow import RawRow
from tutelage.formats.row_shapes.recognition import is_recognized
from tutelage.formats.turns import first_value
from tutelage.ledger import Ledger
from tutelage.types import Address, Conversation, Drop, Message

AWAITED: Final = "\ue000 tutelage: this reply is still to be written \ue001"
"""Stands as the reply of a row that has none while the row is read: characters that no text of a person holds."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """What is to be answered.

    Attributes:
        address: of the row.
        messages: all before the reply, a system text included; what the assistant said in them is context.
        reply: what the row has as the last reply; None where it has none.
        tools: that the row offers.
        template_arguments: for the chat template.
        metadata: what the row says of itself.
    """

    address: Address
    messages: tuple[Message, ...]
    reply: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_prompts(
    sources: Sequence[str],
    *,
    ledger: Ledger,
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
) -> Iterator[PromptRow]:
    """The prompts of all sources, in order: rows in any shape that `read` takes, and such rows without their reply.

    A document, such as a paragraph of a plain text file, is a prompt of the user.

    Args:
        sources: as `read` has them.
        ledger: counts every row as entered, takes the drops, changes and notes.
        shape: as `read` has it.
        columns: which column holds which field; where a prompt alone is named, no column holds a reply.
        max_rows: stop after this many rows; None reads all.

    Raises:
        TutelageError: as `read` does.
    """
    named = dict(columns or {})
    if "prompt" in named and "response" not in named:
        named["response"] = DEFAULT_FIELDS.response[0]
    fields = fields_for(named)

    def awaiting(row: RawRow) -> RawRow:
        return _awaiting_reply(row, fields)

    conversations = read(
        sources, ledger=ledger, shape=shape, columns=named or None, max_rows=max_rows, prepare=awaiting
    )
    for conversation in conversations:
        row = _prompt_of(conversation)
        if isinstance(row, Drop):
            ledger.drop(row)
            continue
        ledger.keep()
        yield row


def _prompt_of(conversation: Conversation) -> PromptRow | Drop:
    messages = conversation.messages
    if conversation.is_text:
        return PromptRow(conversation.address, (Message("user", messages[0].content),), metadata=conversation.metadata)
    *before, last = messages
    if last.tool_calls:
        return Drop(conversation.address, "reply_is_calls", "the last reply calls tools; a person writes text")
    return PromptRow(
        conversation.address,
        tuple(replace(message, weight=None) for message in before),
        None if last.content == AWAITED else last.content,
        conversation.tools,
        conversation.template_arguments,
        conversation.metadata,
    )


def _awaiting_reply(row: RawRow, fields: Fields) -> RawRow:
    """The row with a stand-in where its last reply is missing; as it is where it has one."""
    for name in (*fields.messages, *fields.conversations):
        turns = row.fields.get(name)
        if turns is None:
            continue
        ended = _with_last_reply(turns)
        return row if ended is None else RawRow(row.address, {**row.fields, name: ended}, row.filled)
    if any(row.fields.get(name) for name in fields.response):
        return row
    asks = next((name for name in (*fields.instruction, *fields.prompt) if row.fields.get(name)), None)
    if asks is None or is_recognized(row.fields):
        return row
    name = next((name for name in fields.response if name in row.fields), fields.response[0])
    return RawRow(row.address, {**row.fields, name: AWAITED}, row.filled)


def _with_last_reply(turns: Any) -> list[Any] | None:
    """The turns with a stand-in behind them where they end with what is to be answered; None where they do not."""
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            return None
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return None
    role = first_value(turns[-1], TURN_KEYS["role"])
    if not isinstance(role, str) or ROLES.get(role.strip().lower()) not in ("user", "tool"):
        return None
    key = next(name for name in TURN_KEYS["role"] if turns[-1].get(name) is not None)
    content = TURN_KEYS["content"][TURN_KEYS["role"].index(key)]
    return [*turns, {key: "assistant", content: AWAITED}]
