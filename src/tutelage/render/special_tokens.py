"""Special tokens that data spells out: found, and on request encoded as the ordinary characters they are in a text.

A tokenizer reads `<|im_end|>` in a user's text as the real token: a turn that nobody wrote. So such a row is dropped,
or they are escaped: the text stays as it is, and its ids are those of plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer as FastTokenizer

from tutelage.render.chat_template.tracing import Source, Traced
from tutelage.render.required_text import Unproven, strings_in
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Conversation

Span = tuple[int, int]


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of one tokenizer, as data may spell them."""

    tokenizer: Tokenizer

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Finds a special token in text; None when the tokenizer has none."""
        return self.tokenizer.special_token_pattern()

    def first_spelled(self, conversation: Conversation) -> tuple[str, str] | None:
        """The first special token that one of a row's texts spells, and what that text is; None if none does."""
        if self.pattern is None:
            return None
        for location, text in texts_of(conversation):
            if match := self.pattern.search(text):
                return location, match.group()
        return None

    def may_join(self, conversation: Conversation) -> bool:
        """Whether a text ends in the beginning of a special token, which what follows it could complete."""
        return any(
            start >= 0 and text[start:] in self._beginnings
            for _, text in texts_of(conversation)
            for start in (text.rfind(character, -self._longest) for character in self._first_characters)
        )

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        token_texts = (token_text for token_text in self.tokenizer.special_tokens if token_text.strip())
        return frozenset(token_text[:size] for token_text in token_texts for size in range(2, len(token_text)))

    @cached_property
    def _first_characters(self) -> str:
        return "".join(sorted({beginning[0] for beginning in self._beginnings}))

    @cached_property
    def _longest(self) -> int:
        return max((len(beginning) for beginning in self._beginnings), default=1)

    def escaped_spans(self, traced: Traced, conversation: Conversation) -> tuple[Span, ...]:
        """The special tokens in a rendering that data wrote, wholly or in part."""
        if self.pattern is None:
            return ()
        data = {number for number, source in enumerate(traced.sources) if _is_data(source, conversation)}
        return tuple(
            match.span()
            for match in self.pattern.finditer(traced.text)
            if any(int(number) in data for number in traced.source[match.start() : match.end()])
        )

    def encode(self, text: str, escaped: Sequence[Span]) -> list[int]:
        """Ids of `text`, with the special tokens at the `escaped` spans encoded as ordinary characters."""
        assert self.pattern is not None
        ids: list[int] = []
        start = 0
        numbers = self.tokenizer.special_tokens
        for match in self.pattern.finditer(text):
            if any(match.start() < end and begin < match.end() for begin, end in escaped):
                continue
            ids += self._encode_plain(text[start : match.start()])
            ids.append(numbers[match.group()])
            start = match.end()
        return ids + self._encode_plain(text[start:])

    def encode_document(self, text: str) -> list[int]:
        """Ids of a document whose special tokens are ordinary characters, with what the tokenizer adds around it."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=True).ids
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _plain(self) -> FastTokenizer:
        plain = FastTokenizer.from_str(self.tokenizer.fast.to_str())
        plain.encode_special_tokens = True
        return plain


def texts_of(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Every text that a template may write, with what to call it."""
    for index, message in enumerate(conversation.messages):
        location = f"message {index} ({message.role})"
        for text in (message.content, message.reasoning, message.name, message.tool_call_id):
            if text:
                yield location, text
        for call in message.tool_calls:
            for text in (call.name, call.id or "", *strings_in(dict(call.arguments))):
                yield location, text
    for text in strings_in([dict(tool) for tool in conversation.tools]):
        yield "a tool's description", text
    for text in strings_in(dict(conversation.template_arguments)):
        yield "a template argument", text


def special_token_finding(spelled: tuple[str, str]) -> Unproven:
    """The finding about a row that spells a special token."""
    location, token_text = spelled
    return Unproven(
        "control_token_in_text",
        f"{location} spells the control token {token_text!r}, which the tokenizer would read as one",
    )


def _is_data(source: Source, conversation: Conversation) -> bool:
    if source.message is not None or not source.field.startswith("argument."):
        return source.field != "role"  # one of four words of our own
    return source.field.removeprefix("argument.").split(".")[0].split("[")[0] in conversation.template_arguments
