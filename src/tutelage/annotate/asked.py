"""Prompts as people are asked to answer them: each once, under a key that is a hash of its words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.curate.row_json import conversation_of, row_json
from tutelage.errors import DataError
from tutelage.formats.prompts import read_prompts
from tutelage.ledger import Ledger
from tutelage.types import Address, Conversation, Message

KEY_DIGITS = 16
"""Of a prompt's hash: 64 bits."""


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """One prompt.

    Attributes:
        key: hash of the turns, the tools and the arguments of the template.
        address: of its row, as text.
        conversation: the turns before the reply.
        reply: what the row had as the reply; None where it had none.
        metadata: what the row says of itself.
    """

    key: str
    address: str
    conversation: Conversation
    reply: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns before the reply."""
        return self.conversation.messages

    def as_fields(self) -> dict[str, Any]:
        """As a log keeps it."""
        fields: dict[str, Any] = {"address": self.address, "row": row_json(self.conversation)}
        if self.reply is not None:
            fields["reply"] = self.reply
        return fields | ({"metadata": dict(self.metadata)} if self.metadata else {})

    @classmethod
    def from_fields(cls, key: str, fields: Mapping[str, Any]) -> AskedPrompt:
        """What `as_fields` kept.

        Raises:
            KeyError, TypeError, ValueError: the fields are something else.
        """
        address = str(fields["address"])
        conversation = conversation_of(fields["row"], Address(address, 0))
        return cls(key, address, conversation, fields.get("reply"), fields.get("metadata") or {})


@dataclass(frozen=True, slots=True)
class AskedPrompts:
    """All prompts in the order of their rows, and how many rows asked what another had asked already."""

    prompts: tuple[AskedPrompt, ...]
    repeated: int


def asked_prompts(
    sources: Sequence[str],
    *,
    ledger: Ledger,
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
) -> AskedPrompts:
    """Read them; of rows with the same prompt the first is asked, with the first reply that any of them has.

    Args:
        sources: as `formats.read` has them.
        ledger: counts every row.
        shape: as `formats.read` has it.
        columns: which column holds which field.
        max_rows: stop after so many rows.

    Raises:
        DataError: there is no prompt.
        TutelageError: as `formats.read` does.
    """
    by_key: dict[str, AskedPrompt] = {}
    repeated = 0
    for row in read_prompts(sources, ledger=ledger, shape=shape, columns=columns, max_rows=max_rows):
        conversation = Conversation(row.messages, row.address, row.tools, row.template_arguments)
        key = hashlib.sha256(row_json(conversation).encode("utf-8", "backslashreplace")).hexdigest()[:KEY_DIGITS]
        known = by_key.get(key)
        repeated += known is not None
        if known is None or (known.reply is None and row.reply is not None):
            by_key[key] = AskedPrompt(key, str(row.address), conversation, row.reply, dict(row.metadata))
    if not by_key:
        raise DataError(
            "There is no prompt to answer",
            where=", ".join(sources),
            found=f"{ledger.rows_in} rows: {json.dumps(ledger.as_dict()['dropped'])}",
            expected="rows with a prompt",
            fix="see why rows were dropped: tutelage check FILE",
        )
    return AskedPrompts(tuple(by_key.values()), repeated)
