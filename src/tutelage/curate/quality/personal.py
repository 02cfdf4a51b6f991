"""Personal data in any text of a row: found, dropped, reported or masked; the ledger never shows a datum whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import PersonalSettings
from tutelage.curate.quality.personal_patterns import MAY_BE_PERSONAL, NUMBERS, WRITTEN, PersonalKind, has_digits
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.types import Conversation

_SHOWN: Final = 2
"""Characters of a datum that the ledger shows."""


@dataclass(frozen=True, slots=True)
class Personal:
    """Finds e-mail addresses, phone numbers, IBANs, cards, public IP addresses and keys."""

    settings: PersonalSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a key's beginning, an `@`, or six digits together."""
        return chunk.turns.rows_with(MAY_BE_PERSONAL)

    def __call__(self, row: RowTexts) -> str | None:
        """How many of each kind, and how the first one begins."""
        met: list[str] = []
        for message in row.conversation.messages:
            if message.content:
                met += (f"{kind.name} {_veiled(datum)}" for kind, datum in self._data(message.content))
        if not met:
            return None
        return f"{len(met)} found: {', '.join(met[:5])}"

    def masked(self, conversation: Conversation) -> Conversation:
        """The row with `[EMAIL]`, `[PHONE]` and so on in the place of each datum."""
        messages = list(conversation.messages)
        for index, message in enumerate(messages):
            if message.content:
                messages[index] = replace(message, content=self.masked_text(message.content))
        return replace(conversation, messages=tuple(messages))

    def masked_text(self, text: str) -> str:
        """A text with `[EMAIL]`, `[PHONE]` and so on in the place of each datum."""
        for kind, datum in self._data(text):
            text = text.replace(datum, f"[{kind.name.upper()}]")
        return text

    def _data(self, text: str) -> list[tuple[PersonalKind, str]]:
        data: list[tuple[PersonalKind, str]] = []
        kinds = (*(kind for kind in WRITTEN if kind.hint(text)), *(NUMBERS if has_digits(text) else ()))
        for kind in kinds:
            if kind.name in self.settings.kinds:
                for match in kind.pattern.finditer(text):
                    if kind.holds(match.group()):
                        data.append((kind, match.group()))
                        text = text.replace(match.group(), " ")
        return data


def _veiled(datum: str) -> str:
    return f"{datum[:_SHOWN]}... ({len(datum)} characters)"


PERSONAL = RuleDefinition("personal", "personal data: addresses, numbers and keys", Personal)
