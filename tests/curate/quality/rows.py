"""Rows for tests of rules."""

from __future__ import annotations

from typing import Any

from tutelage.config.curation_quality import QualitySettings
from tutelage.curate.quality.rule import RowTexts
from tutelage.curate.quality.rules import RULES
from tutelage.types import Address, Conversation, Message

HERE = Address("a.jsonl", 5)


def chat(prompt: str, *replies: str, **rest: Any) -> Conversation:
    """A row in which the user asks once and the assistant says the replies, one after another with `Go on.` between."""
    messages = [Message("user", prompt)]
    for index, reply in enumerate(replies):
        if index:
            messages.append(Message("user", "Go on."))
        messages.append(Message("assistant", reply))
    return Conversation(tuple(messages), HERE, **rest)


def finding(rule: str, row: Conversation, **settings: Any) -> str | None:
    """What a rule finds in a row."""
    (definition,) = (definition for definition in RULES if definition.name == rule)
    section = type(getattr(QualitySettings(), rule))
    return definition.build(section(**settings))(RowTexts(row))
