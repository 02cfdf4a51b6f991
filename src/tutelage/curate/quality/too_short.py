"""Replies and prompts of a word or two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import TooShortSettings
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.curate.texts import words


@dataclass(frozen=True, slots=True)
class TooShort:
    """Counts words; of scripts without spaces each character is one, so that a short Chinese reply is not too short."""

    settings: TooShortSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows with a last reply, or a prompt, of few characters."""
        last = chunk.last_learned
        return last.rows_of(last.lengths < 12 * self.settings.reply_words) | (
            chunk.prompt_lengths < 12 * self.settings.prompt_words
        )

    def __call__(self, row: RowTexts) -> str | None:
        """How many words the last reply or the prompt has, where these are too few."""
        if row.learned:
            reply = row.learned[-1]
            if len(reply) < 12 * self.settings.reply_words and len(words(reply)) < self.settings.reply_words:
                return f"{len(words(reply))} words: {reply[:40]!r}"
        if not row.documents and len(row.prompt) < 12 * self.settings.prompt_words:
            count = len(words(row.prompt))
            if count < self.settings.prompt_words:
                return f"a prompt of {count} words: {row.prompt[:40]!r}"
        return None


TOO_SHORT = RuleDefinition(
    "too_short", "a reply, document or prompt of fewer words than the settings ask for", TooShort
)
