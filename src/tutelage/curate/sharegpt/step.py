"""The step `sharegpt`: conversations that people copied from a chat service's page, as whole exchanges, not too long.

What it does is what was done to Vicuna's data, with four differences: the exchange that overflows a part begins the
next one and is not lost, no part is empty, no word costs a row unless it is named, and what a user typed is no HTML, so
that `#include <stdio.h>` stays whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from tutelage.config.curation_sharegpt import SharegptSettings
from tutelage.curate.excerpts import difference, excerpt
from tutelage.curate.sharegpt.exchanges import Exchange, Exchanges, grouped, out_of_turn
from tutelage.curate.sharegpt.page_debris import (
    error_notice,
    restarted_list,
    without_buttons,
    without_buttons_behind,
)
from tutelage.curate.sharegpt.page_html import markdown_of, require_converter
from tutelage.curate.step import Edited, Outcome, Split, StepContext, StepDefinition
from tutelage.curate.texts import message_text
from tutelage.curate.token_counts import token_counts, tokenizer_file
from tutelage.types import Change, Conversation, Drop, Message

NAME: Final = "sharegpt"


@dataclass(frozen=True, slots=True)
class Sharegpt:
    """The step.

    Attributes:
        settings: what is mended, and what goes.
        tokenizer: content of a tokenizer.json, where conversations are split by their tokens.
        facts: what the tokenizer is.
    """

    settings: SharegptSettings
    tokenizer: str | None = None
    facts: list[str] = field(default_factory=list)
    name: str = NAME

    def __call__(self, conversation: Conversation) -> Outcome:
        """The row as it goes on, in several parts where it is too long; a document goes on as it is."""
        if conversation.is_text:
            return conversation
        changes: list[Change] = []
        row = self._without_buttons(self._as_markdown(conversation, changes), changes)
        taken = Exchanges.of(row)
        if not taken.exchanges:
            return Drop(row.address, "no_question", f"the roles are {', '.join(one.role for one in row.messages)}")
        if taken.leading:
            said = ", ".join(message.role for message in taken.leading)
            detail = f"{said}: {excerpt(taken.leading[0].content or '')}"
            changes.append(Change(row.address, "leading_turns_removed", detail))
        exchanges = self._up_to_notice(taken.exchanges, row, changes)
        in_turn = _up_to_disorder(exchanges, row, changes)
        gone = in_turn if isinstance(in_turn, Drop) else self._unwanted(in_turn, row, changes)
        if gone is not None:
            return gone
        assert not isinstance(in_turn, Drop), "it is gone"
        exchanges = in_turn
        row = replace(row, messages=taken.joined(exchanges)) if changes else conversation
        if self.tokenizer is not None and self.settings.conversation_tokens is not None:
            return self._split(row, taken, exchanges, changes)
        return Edited(row, tuple(changes)) if changes else row

    def _as_markdown(self, row: Conversation, changes: list[Change]) -> Conversation:
        """The row with Markdown in place of replies that are a page's HTML."""
        pages = self.settings.html
        replies = [place for place, one in enumerate(row.messages) if one.role == "assistant" and one.content]
        if pages == "off" or not replies:
            return row
        converted = {place: markdown_of(row.messages[place].content or "", pages) for place in replies}
        if pages == "any" and None in converted.values():
            return row  # a page has all replies as HTML: one of several was meant to be HTML
        messages, first = list(row.messages), None
        for place, markdown in converted.items():
            if markdown is not None:
                first = first or difference(messages[place].content or "", markdown)
                messages[place] = replace(messages[place], content=markdown)
        if first is None:
            return row
        changes.append(Change(row.address, "html_to_markdown", first))
        return replace(row, messages=tuple(messages))

    def _without_buttons(self, row: Conversation, changes: list[Change]) -> Conversation:
        if not self.settings.buttons:
            return row
        messages, first = list(row.messages), None
        for place, message in enumerate(messages):
            before = message.content
            if before and message.role in ("user", "assistant"):
                after = without_buttons(before)
                after = without_buttons_behind(after) if message.role == "user" else after
                if after != before and not after.isspace() and after:
                    messages[place] = replace(message, content=after)
                    first = first or difference(before, after)
        if first is None:
            return row
        changes.append(Change(row.address, "page_buttons", first))
        return replace(row, messages=tuple(messages))

    def _up_to_notice(
        self, exchanges: Sequence[Exchange], row: Conversation, changes: list[Change]
    ) -> tuple[Exchange, ...]:
        """The exchanges before the first that the service answered with an error or with nothing."""
        for place, exchange in enumerate(exchanges) if self.settings.notices else ():
            notice = next((met for reply in _replies(exchange) if (met := error_notice(reply)) is not None), None)
            if notice is not None:
                if place:
                    left = f"{notice or 'nothing'!r}; {place} of {len(exchanges)} exchanges go on"
                    changes.append(Change(row.address, "error_notice", left))
                return tuple(exchanges[:place])
        return tuple(exchanges)

    def _unwanted(self, exchanges: Sequence[Exchange], row: Conversation, changes: list[Change]) -> Drop | None:
        """Why the row does not go on, if it does not; what is only reported is a change."""
        if not exchanges:
            return Drop(row.address, "error_notice", "in place of the first reply")
        replies = [reply for exchange in exchanges for reply in _replies(exchange)]
        for word in self.settings.blocked_words:
            for reply in replies:
                met = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE)
                if met is not None:
                    return Drop(row.address, "blocked_word", f"{word}: {excerpt(reply, met.start())}")
        characters = sum(len(message.content or "") for exchange in exchanges for message in exchange)
        if characters < self.settings.least_characters:
            return Drop(row.address, "conversation_too_short", f"{characters} characters")
        if self.settings.list_numbers != "off":
            for reply in replies:
                if (start := restarted_list(reply)) is not None:
                    if self.settings.list_numbers == "drop":
                        return Drop(row.address, "list_numbers", excerpt(reply, start))
                    changes.append(Change(row.address, "list_numbers", excerpt(reply, start)))
                    break
        return None

    def _split(
        self, row: Conversation, taken: Exchanges, exchanges: Sequence[Exchange], changes: list[Change]
    ) -> Outcome:
        """The row in parts of whole exchanges; one that is too long by itself stays whole, and is said."""
        assert self.tokenizer is not None, "the caller has seen to it"
        assert self.settings.conversation_tokens is not None, "the caller has seen to it"
        most = self.settings.conversation_tokens
        base = self._tokens(taken.opening)
        if row.tools:
            base += sum(token_counts([json.dumps(list(row.tools), ensure_ascii=False)], self.tokenizer))
        parts = grouped(exchanges, self._tokens, base, most)
        for part, tokens in parts:
            if tokens > most:
                detail = f"{tokens:,} tokens, more than {most:,}: {excerpt(part[0][0].content or '')}"
                changes.append(Change(row.address, "long_exchange", detail))
        if len(parts) == 1:
            return Edited(row, tuple(changes)) if changes else row
        sizes = " + ".join(str(len(part)) for part, _ in parts)
        split = Change(row.address, "split_between_exchanges", f"{len(exchanges)} exchanges -> {sizes}")
        made = tuple(replace(row, messages=taken.joined(part)) for part, _ in parts)
        return Split(made, (split, *changes))  # the reason of the first change is that of the rows added

    def _tokens(self, messages: Sequence[Message]) -> int:
        assert self.tokenizer is not None, "only a split counts"
        counts = token_counts([message_text(message) for message in messages], self.tokenizer)
        return sum(counts) + self.settings.turn_tokens * len(messages)


def _replies(exchange: Exchange) -> list[str]:
    return [message.content for message in exchange if message.role == "assistant" and message.content]


def _up_to_disorder(
    exchanges: Sequence[Exchange], row: Conversation, changes: list[Change]
) -> tuple[Exchange, ...] | Drop:
    """The exchanges before the first whose turns are not in turn; a drop where that is the first."""
    for place, exchange in enumerate(exchanges):
        if (sentence := out_of_turn(exchange)) is not None:
            if not place:
                return Drop(row.address, "turns_do_not_alternate", sentence)
            detail = f"{sentence}; {place} of {len(exchanges)} exchanges go on"
            changes.append(Change(row.address, "turns_do_not_alternate", detail))
            return tuple(exchanges[:place])
    return tuple(exchanges)


def _build(settings: SharegptSettings, _: StepContext) -> Sharegpt:
    from tutelage.system.seals import file_sha256

    if settings.html != "off":
        require_converter()
    if settings.conversation_tokens is None:
        return Sharegpt(settings)
    otherwise = "take curate.sharegpt.conversation_tokens out, and none is split"
    path = tokenizer_file(NAME, "conversation_tokens", settings.tokenizer, otherwise)
    return Sharegpt(settings, path.read_text(encoding="utf-8"), [file_sha256(path)])


SHAREGPT = StepDefinition(
    NAME,
    "mends conversations copied from a chat page, and splits long ones between exchanges",
    SharegptSettings,
    _build,
)
