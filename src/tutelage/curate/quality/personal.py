"""Personal data in all that turns say, found, dropped, reported or masked; the ledger never shows a datum whole.

Reasoning and arguments of calls are trained like other text, and looked at like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tutelage.config.curation_quality import PersonalSettings
from tutelage.curate.quality.personal_patterns import MAY_BE_PERSONAL, NUMBERS, WRITTEN, PersonalKind, has_digits
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.curate.texts import message_text
from tutelage.types import Conversation, Message

_SHOWN: Final = 2
"""Characters of a datum that the ledger shows."""


@dataclass(frozen=True, slots=True)
class Personal:
    """Finds e-mail addresses, phone numbers, IBANs, cards, public IP addresses and keys."""

    settings: PersonalSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a key's beginning, an `@`, or six digits together."""
        return chunk.said.rows_with(MAY_BE_PERSONAL)

    def __call__(self, row: RowTexts) -> str | None:
        """How many of each kind, and how the first one begins."""
        met: list[str] = []
        for message in row.conversation.messages:
            met += (f"{kind.name} {_veiled(datum)}" for kind, datum in self._data(message_text(message)))
        if not met:
            return None
        return f"{len(met)} found: {', '.join(met[:5])}"

    def masked(self, conversation: Conversation) -> Conversation:
        """The row with `[EMAIL]`, `[PHONE]` and so on in the place of each datum."""
        return replace(conversation, messages=tuple(map(self._masked_turn, conversation.messages)))

    def _masked_turn(self, message: Message) -> Message:
        return replace(
            message,
            content=self._masked_value(message.content),
            reasoning=self._masked_value(message.reasoning),
            tool_calls=tuple(
                replace(call, arguments=self._masked_value(call.arguments)) for call in message.tool_calls
            ),
        )

    def _masked_value(self, value: Any) -> Any:
        """A value of JSON, with masks in its texts; a number that is a datum becomes its mask."""
        if isinstance(value, Mapping):
            return {name: self._masked_value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._masked_value(inner) for inner in value]
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            return value
        text = str(value)
        masked = self.masked_text(text)
        return value if masked == text else masked

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
