"""Texts that were rendered before: a whole conversation, with the marks of its chat format, in one text.

Trained as it is, a model learns to write its own user turns, and the template's real marks beside their spellings.
Where a text is a conversation of one known format from its first character to its last, it is split into turns.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, cast

from msgspec.structs import replace

from tutelage.curate.prose import outside_backticks
from tutelage.types import Conversation, Message, Role

_BEGINS: Final = re.compile(r"\A\s*(?:<s>|<\|begin_of_text\|>|<bos>|<｜begin▁of▁sentence｜>)?\s*")
_HEADERS: Final = ("system", "user", "input", "assistant")
_EXCERPT: Final = 60

Part = Literal["system", "user", "input", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat format as it stands in texts.

    Attributes:
        name: its table in `chat_templates.toml`.
        sign: a text that no conversation of it lacks.
        certain: whether its headers are never prose.
        headers: finds a header; its group names the part of the conversation that begins there.
        preamble: a sentence before the first header, if the format has one.
        preamble_is_system: whether that sentence is the system prompt; else it goes, as the format always writes it.
        system_inside: finds the system prompt inside of the first user turn.
        ends: finds what closes a turn, at its end.
    """

    name: str
    sign: str
    certain: bool
    headers: re.Pattern[str]
    preamble: re.Pattern[str] | None
    preamble_is_system: bool
    system_inside: re.Pattern[str] | None
    ends: re.Pattern[str]

    def turns(self, text: str) -> tuple[Message, ...] | None:
        """The turns of a text that is a conversation of this format from end to end; None for any other.

        It begins with a header (or the preamble), users and assistant take turns, a system prompt only begins it, no
        turn is empty, and the assistant has the last word.
        """
        beginning = _BEGINS.match(text)
        start = beginning.end() if beginning else 0
        preamble = self.preamble.match(text, start) if self.preamble else None
        headers = list(self.headers.finditer(text))
        if not headers or text[preamble.end() if preamble else start : headers[0].start()].strip():
            return None
        parts: list[tuple[Part, str]] = []
        if preamble and self.preamble_is_system:
            parts.append(("system", preamble.group().strip()))
        for header, following in zip(headers, [*headers[1:], None], strict=True):
            content = text[header.end() : following.start() if following else len(text)]
            parts.append((cast(Part, header.lastgroup), self.ends.sub("", content).strip()))
        return self._conversation(parts)

    def _conversation(self, parts: list[tuple[Part, str]]) -> tuple[Message, ...] | None:
        messages: list[Message] = []
        for part, text in parts:
            content = text
            if part == "input":
                if not messages or messages[-1].role != "user":
                    return None
                joined = "\n\n".join(filter(None, (messages[-1].content, content)))
                messages[-1] = replace(messages[-1], content=joined)
                continue
            inside = self.system_inside.search(content) if self.system_inside and part == "user" else None
            if inside and not messages:
                messages.append(Message("system", inside.group(1)))
                content = content.replace(inside.group(), "", 1).strip()
            messages.append(Message(part, content))
        roles = [message.role for message in messages]
        dialog = roles[1:] if roles[:1] == ["system"] else roles
        alternate: list[Role] = ["user", "assistant"] * (len(dialog) // 2)
        if not dialog or dialog != alternate or not all(message.content for message in messages):
            return None
        return tuple(messages)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat format that was met inside a row.

    Attributes:
        name: of the format.
        evidence: where it was met.
        conversation: the row with its turns apart; None where it cannot be split in one way only.
    """

    name: str
    evidence: str
    conversation: Conversation | None


def rendered(conversation: Conversation) -> Rendered | None:
    """The chat format that a row's texts are rendered in; None where there is none.

    Split are documents, and a prompt that ends in the header of its reply. Left alone are formats in backticks, and,
    of those whose headers are ordinary words, all that are not a conversation from end to end.
    """
    texts = [message.content or "" for message in conversation.messages]
    for chat_format in chat_formats():
        if not any(chat_format.sign in text for text in texts):
            continue
        shown = [outside_backticks(text) for text in texts]
        if not any(chat_format.headers.search(text) for text in shown):
            continue
        place = next(index for index, text in enumerate(shown) if chat_format.headers.search(text))
        messages = _split(conversation, chat_format)
        if messages is not None or (chat_format.certain and _opens_turns(chat_format, shown)):
            text = shown[place]
            at = cast("re.Match[str]", chat_format.headers.search(text)).start()
            excerpt = text[at : at + _EXCERPT]
            evidence = f"{chat_format.name} in the {conversation.messages[place].role} text: {excerpt!r}"
            row = None if messages is None else replace(conversation, messages=messages)
            return Rendered(chat_format.name, evidence, row)
    return None


def _split(conversation: Conversation, chat_format: ChatFormat) -> tuple[Message, ...] | None:
    messages = conversation.messages
    if conversation.is_text:
        return chat_format.turns(messages[0].content or "")
    system = messages[:1] if messages[0].role == "system" else ()
    if [message.role for message in messages[len(system) :]] != ["user", "assistant"]:
        return None
    prompt, reply = messages[-2:]
    if reply.tool_calls or not chat_format.headers.search(prompt.content or ""):
        return None
    turns = chat_format.turns(f"{prompt.content}\n{reply.content or ''}")
    if turns is None or (system and turns[0].role == "system"):
        return None
    last = replace(reply, content=turns[-1].content)
    return (*system, *turns[:-1], last)


def _opens_turns(chat_format: ChatFormat, texts: list[str]) -> bool:
    """Whether headers stand in the texts as headers do: at a beginning, or several of them."""
    return any(
        len(found := list(chat_format.headers.finditer(text))) > 1 or (found and not text[: found[0].start()].strip())
        for text in texts
    )


@cache
def chat_formats() -> tuple[ChatFormat, ...]:
    """All formats of `chat_templates.toml`, in its order."""
    tables = tomllib.loads((files(__package__) / "chat_templates.toml").read_text(encoding="utf-8"))
    return tuple(_chat_format(name, facts) for name, facts in tables.items())


def _chat_format(name: str, facts: dict[str, Any]) -> ChatFormat:
    headers = "|".join(f"(?P<{part}>{facts[part]})" for part in _HEADERS if part in facts)
    ends = "|".join(map(re.escape, facts["ends"])) or r"(?!)"
    return ChatFormat(
        name=name,
        sign=facts["sign"],
        certain=facts["certain"],
        headers=re.compile(headers, re.MULTILINE),
        preamble=re.compile(facts["preamble"]) if "preamble" in facts else None,
        preamble_is_system=facts.get("preamble_is_system", False),
        system_inside=re.compile(facts["system_inside"], re.DOTALL) if "system_inside" in facts else None,
        ends=re.compile(rf"(?:\s*(?:{ends}))+\s*\Z"),
    )
