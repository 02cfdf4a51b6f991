"""The step `normalize`: its edits in their order, each of which can be switched off and names itself in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tutelage.config.curation_normalize import NormalizeSettings
from tutelage.curate.excerpts import difference
from tutelage.curate.normalize.characters import MAY_HAVE_CONTROL_CHARACTERS, to_nfc, without_control_characters
from tutelage.curate.normalize.chat_templates import chat_formats, rendered
from tutelage.curate.normalize.escapes import MAY_HAVE_ESCAPES, read_entities, read_newlines
from tutelage.curate.normalize.mojibake import Mojibake
from tutelage.curate.normalize.placeholders import (
    bracket_slot,
    may_have_placeholders,
    unfilled_variable,
    without_empty_input,
)
from tutelage.curate.normalize.reasoning import Unmendable, mend_reasoning
from tutelage.curate.normalize.special_texts import MAY_HAVE_END_TOKENS, special_texts, without_end_tokens
from tutelage.curate.screens import TextColumn, any_of
from tutelage.curate.step import Edited, StepContext, StepDefinition
from tutelage.types import Change, Conversation, Drop, Message, Role


@dataclass(frozen=True, slots=True)
class TextEdit:
    """An edit of one text.

    Attributes:
        reason: how the ledger counts it.
        edit: the text as it goes on, itself where nothing is to be done.
        roles: whose texts it is for.
    """

    reason: str
    edit: Callable[[str], str]
    roles: frozenset[Role] = frozenset({"system", "user", "assistant", "text"})


@dataclass(frozen=True, slots=True)
class Normalize:
    """The step. Results of tools are not touched: they are what a program said.

    Args:
        settings: which edits are made.

    Raises:
        DependencyError: ftfy is asked for and not installed.
    """

    settings: NormalizeSettings
    name: str = field(default="normalize", init=False)
    edits: tuple[TextEdit, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", tuple(_text_edits(self.settings)))

    def screen(self, conversations: Sequence[Conversation]) -> NDArray[np.int64]:
        """1 for each row with a text that any edit may have to do with: int64 [rows]."""
        turns = TextColumn([[message.content or "" for message in row.messages] for row in conversations])
        return turns.rows_with(_may_need_edits()).astype(np.int64)

    def judged(self, conversation: Conversation, possible: int) -> Conversation | Edited | Drop:  # noqa: ARG002 one bit
        """As a call: all edits are tried, as one may make another necessary."""
        return self(conversation)

    def __call__(self, conversation: Conversation) -> Conversation | Edited | Drop:
        """The row as it goes on, with a change for each kind of edit; dropped where it cannot be mended in one way."""
        changes: list[Change] = []
        row = conversation
        address = row.address
        if self.settings.chat_templates != "off" and (met := rendered(row)) is not None:
            if met.conversation is None or self.settings.chat_templates == "drop":
                return Drop(address, "chat_template_in_text", met.evidence)
            roles = ", ".join(message.role for message in met.conversation.messages)
            changes.append(Change(address, "chat_template_in_text", f"{met.evidence}; now {roles}"))
            row = met.conversation
        row = self._edited(row, changes)
        if self.settings.reasoning_tags:
            mended = _reasoning_mended(row, changes)
            if isinstance(mended, Drop):
                return mended
            row = mended
        slot = self._unfilled(row, changes)
        if slot is not None:
            return slot
        return Edited(row, tuple(changes)) if changes else row

    def _edited(self, row: Conversation, changes: list[Change]) -> Conversation:
        messages = list(row.messages)
        for edit in self.edits:
            first: str | None = None
            for index, message in enumerate(messages):
                before = message.content
                if before and message.role in edit.roles:
                    after = edit.edit(before)
                    if after != before and (after or message.role != "user"):
                        messages[index] = replace(message, content=after)
                        first = first or difference(before, after)
            if first is not None:
                reason = edit.reason
                changes.append(Change(row.address, reason, first))
                row = replace(row, messages=tuple(messages))
        return row

    def _unfilled(self, row: Conversation, changes: list[Change]) -> Drop | None:
        if self.settings.variables != "off" and (variable := unfilled_variable(row)) is not None:
            detail = f"{variable} in a reply was never filled in"
            if self.settings.variables == "drop":
                return Drop(row.address, "unfilled_variable", detail)
            changes.append(Change(row.address, "unfilled_variable", detail))
        if self.settings.bracket_slots != "off":
            for message in row.messages:
                slot = bracket_slot(message.content or "") if message.role == "assistant" else None
                if slot is not None:
                    if self.settings.bracket_slots == "drop":
                        return Drop(row.address, "bracket_slot", f"{slot} in a reply")
                    changes.append(Change(row.address, "bracket_slot", f"{slot} in a reply"))
                    break
        return None


@cache
def _may_need_edits() -> str:
    """What every text has that any edit changes, whichever are on, as a pattern of `screens`.

    All that is not ASCII passes, so the others need not know of other white space, digits or cases.
    """
    signs = (chat_format.sign for chat_format in chat_formats())
    tags = (tag for pair in special_texts("reasoning").items() for tag in pair)
    return "|".join(
        (
            r"[^\x00-\x7f]",
            MAY_HAVE_END_TOKENS,
            MAY_HAVE_CONTROL_CHARACTERS,
            MAY_HAVE_ESCAPES,
            any_of((*signs, *tags)),
            may_have_placeholders(),
        )
    )


def _text_edits(settings: NormalizeSettings) -> Iterator[TextEdit]:
    if settings.end_tokens:
        yield TextEdit("end_token_in_text", without_end_tokens)
    if settings.mojibake:
        yield TextEdit("mojibake", Mojibake())
    if settings.control_characters:
        yield TextEdit("control_characters", without_control_characters)
    if settings.nfc:
        yield TextEdit("unicode_form", to_nfc)
    if settings.literal_newlines:
        yield TextEdit("literal_newlines", read_newlines)
    if settings.html_entities:
        yield TextEdit("html_entities", read_entities)
    if settings.empty_inputs:
        yield TextEdit("empty_input", without_empty_input, frozenset({"user"}))


def _reasoning_mended(row: Conversation, changes: list[Change]) -> Conversation | Drop:
    messages: list[Message] = []
    for message in row.messages:
        mended = mend_reasoning(message) if message.role == "assistant" else message
        if isinstance(mended, Unmendable):
            reason = mended.reason
            return Drop(row.address, reason, mended.detail)
        if mended is not message:
            detail = difference(message.content or "", mended.content or "")
            changes.append(Change(row.address, "reasoning_tag", detail))
        messages.append(mended)
    changed = any(new is not old for new, old in zip(messages, row.messages, strict=True))
    return replace(row, messages=tuple(messages)) if changed else row


def _build(settings: NormalizeSettings, _: StepContext) -> Normalize:
    return Normalize(settings)


NORMALIZE: Final = StepDefinition(
    "normalize",
    "mends debris of encodings, exports and templates in texts; drops what cannot be mended in one way",
    NormalizeSettings,
    _build,
)
