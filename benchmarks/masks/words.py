"""What a turn says, piece by piece, and which words belong to one message alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.types import Conversation, Message

INLINE_REASONING = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
NAMED_BLOCK = r"think|thinking|thought|reasoning|seed:think|reason|mm:think|judge"
OPENED_BLOCK = re.compile(
    rf"<({NAMED_BLOCK})>\s*\Z|\[(THINK)\]\s*\Z|<\|START_(THINKING)\|>\s*\Z|<\|channel>(thought)\s*\Z"
)
CLOSED_BLOCK = re.compile(
    rf"(?:</(?:{NAMED_BLOCK})>|\[/THINK\]|<\|END_THINKING\|>|<\|channel>thought\s*<channel\|>)\s*\Z"
)
WORD = re.compile(r"\w{4,}")


@dataclass(frozen=True, slots=True)
class Piece:
    """Words that a reply must hold: `spellings` are the ways that count; `kind` names it in a finding."""

    kind: str
    spellings: tuple[str, ...]

    def find(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Where the first of the spellings stands at or after `start`."""
        for spelling in self.spellings:
            if (position := text.find(spelling, start)) >= 0:
                return position, position + len(spelling)
        return None


def spoken(message: Message) -> list[Piece]:
    """Reasoning, then content: what must stand in a reply in this order; outer white space aside."""
    pieces = []
    if reasoning := (message.reasoning or "").strip():
        pieces.append(Piece("reasoning", (reasoning,)))
    content = (message.content or "").strip()
    if found := INLINE_REASONING.match(content):
        inner, rest = (group.strip() for group in found.groups())
        if inner:
            pieces.append(Piece("inline reasoning", (inner,)))
        content = rest
    if content:
        pieces.append(Piece("content", (content,)))
    return pieces


def called(message: Message) -> list[Piece]:
    """Names and argument values of the calls, as text or as JSON writes them."""
    pieces = []
    for call in message.tool_calls:
        pieces.append(Piece("name of a call", (call.name,)))
        for value in _leaves(dict(call.arguments)):
            written = (
                (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
                if isinstance(value, str)
                else (json.dumps(value), str(value))
            )
            pieces.append(Piece("argument of a call", written))
    return pieces


def said_to_model(message: Message) -> list[Piece]:
    """What a later prompt must still hold of a message: reasoning may be gone, results may be written as JSON."""
    if message.role == "assistant":
        return [one for one in spoken(message) if one.kind == "content"] + called(message)
    content = (message.content or "").strip()
    if not content:
        return []
    quoted = (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
    if message.role != "tool":
        return [Piece("content", quoted)]
    return [Piece("content", (*quoted, *_as_json_writes(content)))]


def _as_json_writes(content: str) -> tuple[str, ...]:
    """A result that is JSON may be parsed and written again."""
    try:
        value = json.loads(content)
    except ValueError:
        return ()
    return tuple(
        json.dumps(value, ensure_ascii=False, **more) for more in ({}, {"indent": 2}, {"separators": (",", ":")})
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and not isinstance(value, bool):
        yield value


def all_words(message: Message) -> str:
    """Everything a message says, as one text."""
    parts = [message.content or "", message.reasoning or "", message.name or ""]
    parts += [str(leaf) for call in message.tool_calls for leaf in (call.name, *_leaves(dict(call.arguments)))]
    return "\n".join(parts)


def own_words(conversation: Conversation, template: str) -> list[set[str]]:
    """For each message the words that no other message, tool or template text holds."""
    per_message = [set(WORD.findall(all_words(message))) for message in conversation.messages]
    counts = Counter(word for words in per_message for word in words)
    common = set(WORD.findall(template)) | set(WORD.findall(json.dumps([dict(tool) for tool in conversation.tools])))
    return [{word for word in words if counts[word] == 1 and word not in common} for words in per_message]
