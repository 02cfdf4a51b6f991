"""Replies that are far shorter or longer than what was asked."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.config.curation_quality import LengthRatioSettings
from tutelage.curate.quality.rule import RowTexts, RuleDefinition


@dataclass(frozen=True, slots=True)
class LengthRatio:
    """Compares characters of all replies with characters of all prompts."""

    settings: LengthRatioSettings

    def __call__(self, row: RowTexts) -> str | None:
        """The ratio, where it lies outside of the settings' bounds."""
        asked, said = len(row.prompt), sum(map(len, row.replies))
        if not asked or not said or self.settings.least * asked <= said <= self.settings.most * asked:
            return None
        return f"replies of {said} characters to prompts of {asked}: {said / asked:.3g} times as long"


LENGTH_RATIO = RuleDefinition("length_ratio", "replies far shorter or longer than the prompts", LengthRatio)
