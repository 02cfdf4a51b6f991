"""Rows in which somebody says nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import EmptySettings
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition, is_learned
from tutelage.curate.screens import SPACE

_NOTHING: Final = re.compile(r"[\s.…·*_#>-]*\Z")
"""White space, dots, and marks of Markdown with nothing in them."""
_SOMETHING: Final = rf"[^{SPACE}.…·*_#>-]"


@dataclass(frozen=True, slots=True)
class Empty:
    """Finds a reply, a document or a prompt without a word, number or sign; calls and reasoning are no nothing."""

    settings: EmptySettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a turn that has no word, number or sign."""
        return chunk.turns.rows_lacking(_SOMETHING)

    def __call__(self, row: RowTexts) -> str | None:
        """Which turn says nothing."""
        for index, message in enumerate(row.conversation.messages):
            if message.role == "text" or (is_learned(message) and not (message.tool_calls or message.reasoning)):
                if _NOTHING.match(message.content or ""):
                    return f"turn {index} ({message.role}) is {message.content!r}"
            elif message.role == "user" and not (message.content or "").strip():
                return f"turn {index} (user) is empty"
        return None


EMPTY = RuleDefinition("empty", "a prompt, reply or document that says nothing", Empty)
