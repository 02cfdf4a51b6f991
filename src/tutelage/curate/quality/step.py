"""The step `quality`: a row goes by its first failing rule, and the ledger names all that fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import QualitySettings, RuleSettings
from tutelage.curate.quality.personal import Personal
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, Rule, ScreenedRule
from tutelage.curate.quality.rules import RULES
from tutelage.curate.step import Edited, StepContext, StepDefinition
from tutelage.types import Change, Conversation, Drop


@dataclass(frozen=True, slots=True)
class ActiveRule:
    """A rule that is on, and what becomes of a row that it finds something in: `drop`, `report` or `mask`."""

    name: str
    action: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Quality:
    """The step.

    Args:
        settings: which rules are on.

    Raises:
        DependencyError: a rule that is on needs a package that is not installed.
        ConfigError: a rule's settings name a language that it does not know.
    """

    settings: QualitySettings
    name: str = field(default="quality", init=False)
    rules: tuple[ActiveRule, ...] = field(init=False)

    def __post_init__(self) -> None:
        active = []
        for definition in RULES:
            settings: RuleSettings = getattr(self.settings, definition.name)
            chosen = not self.settings.rules or definition.name in self.settings.rules
            action = getattr(settings, "action", "off")
            if chosen and action != "off":
                active.append(ActiveRule(definition.name, action, definition.build(settings)))
        object.__setattr__(self, "rules", tuple(active))

    def screen(self, conversations: Sequence[Conversation]) -> NDArray[np.int64]:
        """Which rules may find something in each row, a bit for each rule that is on: int64 [rows]."""
        chunk = ChunkTexts(conversations)
        possible = np.zeros(len(conversations), dtype=np.int64)
        for place, active in enumerate(self.rules):
            bit = np.int64(1 << place)
            possible |= active.rule.screen(chunk) * bit if isinstance(active.rule, ScreenedRule) else bit
        return possible

    def __call__(self, conversation: Conversation) -> Conversation | Edited | Drop:
        """The row, unless a rule that drops has something to say; reports of other rules are changes."""
        return self.judged(conversation, possible=(1 << len(self.rules)) - 1)

    def judged(self, conversation: Conversation, possible: int) -> Conversation | Edited | Drop:
        """The row by those rules alone whose bit is set."""
        row = RowTexts(conversation)
        asked = (rule for place, rule in enumerate(self.rules) if possible >> place & 1)
        failing = [(rule, evidence) for rule in asked if (evidence := rule.rule(row)) is not None]
        if not failing:
            return conversation
        address = conversation.address
        first = next((rule for rule, _ in failing if rule.action == "drop"), None)
        if first is not None:
            ordered = sorted(failing, key=lambda pair: pair[0] is not first)
            detail = "; ".join(f"{rule.name}: {evidence}" for rule, evidence in ordered)
            reason = first.name
            return Drop(address, reason, detail)
        changes = []
        for rule, evidence in failing:
            reason = rule.name
            changes.append(Change(address, reason, evidence))
            if rule.action == "mask" and isinstance(rule.rule, Personal):
                conversation = rule.rule.masked(conversation)
        return Edited(conversation, tuple(changes))


def _build(settings: QualitySettings, _: StepContext) -> Quality:
    return Quality(settings)


QUALITY: Final = StepDefinition(
    "quality",
    "drops rows that are empty, cut, repetitive, broken or refuse, by rules that each can be set to report",
    QualitySettings,
    _build,
)
