"""Scores of choices before and after training -> the share of each way to weigh them, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tutelage.evaluate.capabilities import capabilities_of
from tutelage.evaluate.choice_items import ChoiceItem
from tutelage.evaluate.multiple_choice import above_chance, agreement, chance_level, chosen_rightly
from tutelage.evaluate.uncertainty import uncertainty_of
from tutelage.runs.multiple_choice import ChoiceMeasure, ChoiceScores


def choice_measure(
    items: Sequence[ChoiceItem], before: Sequence[ChoiceScores], after: Sequence[ChoiceScores]
) -> ChoiceMeasure | None:
    """All four ways with intervals, over all and by topic; None without a question, or where no model was measured.

    Args:
        items: the questions.
        before: of the untouched model, in the same order; empty where it was not measured.
        after: of the trained one.
    """
    sides = [scores if len(scores) == len(items) else () for scores in (before, after)]
    if not items or not any(sides):
        return None
    measure = _measure(items, *sides)
    topics = {
        name: _measure([items[at] for at in places], *([side[at] for at in places] if side else () for side in sides))
        for name, places in capabilities_of(items).items()
    }
    return replace(measure, topics=topics)


def _measure(
    items: Sequence[ChoiceItem], before: Sequence[ChoiceScores], after: Sequence[ChoiceScores]
) -> ChoiceMeasure:
    sides = (before, after)
    right_before, right_after = (chosen_rightly(items, scores) if scores else {} for scores in sides)
    same_before, same_after = (agreement(items, scores) if scores else None for scores in sides)
    chance, shares_before, shares_after = chance_level(items), _shares(right_before), _shares(right_after)
    above_before, above_after = (
        {way: above_chance(share, chance) for way, share in shares.items()} for shares in (shares_before, shares_after)
    )
    return ChoiceMeasure(
        len(items),
        chance,
        shares_before,
        shares_after,
        same_before,
        same_after,
        uncertainty_of(right_before, right_after).shares,
        above_before,
        above_after,
    )


def _shares(right: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    return {way: sum(items) / len(items) for way, items in right.items()}
