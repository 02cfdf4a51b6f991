"""A row as one JSON object, and back: how rows lie in chunks, and in the output.

The object is in the shape `messages` (`text` for a document), so a row that no step alters is written without being
encoded again, and our own reader makes the same conversation of it. Arguments of calls are JSON text: into an object
Arrow would fill nulls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from tutelage.types import Address, Conversation, Message, ToolCall

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_decode = json.JSONDecoder().decode
_quoted = json.encoder.encode_basestring
_NONE = (None, None, None, None)
_PLAIN_KEYS = 2
"""Keys of a turn that is a role and its text, as most are."""


def row_json(conversation: Conversation) -> str:
    """The row as a JSON object, without its address."""
    if not conversation.tools and not conversation.template_arguments:
        turns = [turn for message in conversation.messages if (turn := _plain_turn(message)) is not None]
        if len(turns) == len(conversation.messages):
            return f'{{"messages": [{", ".join(turns)}]}}'
    if conversation.is_text:
        return _encode({"text": conversation.messages[0].content})
    fields: dict[str, Any] = {"messages": [_turn(message) for message in conversation.messages]}
    if conversation.tools:
        fields["tools"] = list(conversation.tools)
    if conversation.template_arguments:
        fields["chat_template_kwargs"] = dict(conversation.template_arguments)
    return _encode(fields)


def conversation_of(text: str, address: Address) -> Conversation:
    """The conversation that `row_json` wrote."""
    fields = from_json(text)  # of what `row_json` wrote the same as `json` makes, in less than half the time
    turns = fields.get("messages")
    if turns is None:
        return Conversation((Message("text", fields["text"]),), address)
    messages = tuple(
        [Message(turn["role"], turn["content"]) if len(turn) == _PLAIN_KEYS else _message(turn) for turn in turns]
    )
    if len(fields) == 1:
        return Conversation(messages, address)
    return Conversation(
        messages,
        address,
        tools=tuple(fields.get("tools", ())),
        template_arguments=fields.get("chat_template_kwargs", {}),
    )


def with_metadata(text: str, metadata: Mapping[str, Any]) -> str:
    """The row that `row_json` wrote, with one member more."""
    return f'{text[:-1]}, "metadata": {_encode(dict(metadata))}}}'


def _plain_turn(message: Message) -> str | None:
    """A turn that is a role and its text, as the encoder writes it; None for any other."""
    content = message.content
    others = (message.reasoning, message.name, message.tool_call_id, message.weight)
    if content is None or message.tool_calls or others != _NONE or message.role == "text":
        return None
    return f'{{"role": "{message.role}", "content": {_quoted(content)}}}'


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.weight is not None:
        turn["weight"] = message.weight
    return turn


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _encode(dict(call.arguments))}
    identity = {} if call.id is None else {"id": call.id}
    return {**identity, "type": "function", "function": function}


def _message(turn: Mapping[str, Any]) -> Message:
    return Message(
        turn["role"],
        turn["content"],
        reasoning=turn.get("reasoning_content"),
        tool_calls=tuple(
            ToolCall(call["function"]["name"], _decode(call["function"]["arguments"]), call.get("id"))
            for call in turn.get("tool_calls", ())
        ),
        name=turn.get("name"),
        tool_call_id=turn.get("tool_call_id"),
        weight=turn.get("weight"),
    )
