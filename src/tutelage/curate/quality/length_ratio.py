"""Replies that are far shorter or longer than what was asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import LengthRatioSettings
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition


@dataclass(frozen=True, slots=True)
class LengthRatio:
    """Compares characters of all replies with characters of all prompts."""

    settings: LengthRatioSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows outside of the bounds, and documents."""
        asked = chunk.prompt_lengths
        said = np.bincount(chunk.learned.row_of_text, chunk.learned.lengths, len(asked))
        return (self.settings.least * asked > said) | (said > self.settings.most * asked)

    def __call__(self, row: RowTexts) -> str | None:
        """The ratio, where it lies outside of the settings' bounds."""
        asked, said = len(row.prompt), sum(map(len, row.replies))
        if not asked or not said or self.settings.least * asked <= said <= self.settings.most * asked:
            return None
        return f"replies of {said} characters to prompts of {asked}: {said / asked:.3g} times as long"


LENGTH_RATIO = RuleDefinition("length_ratio", "replies far shorter or longer than the prompts", LengthRatio)
