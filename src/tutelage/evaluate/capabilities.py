"""The general set by its topics: the share right of each, and which items were lost and gained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from tutelage.evaluate.general import GeneralItem
from tutelage.runs.transitions import ItemTransitions, LostItem

Outcome: TypeAlias = bool | float | None
"""As in `evaluate.grading`, which reads this file."""
CAPABILITY = "capability "
"""Stands before the name of a capability where outcomes are named, as `FIELD` before that of a field."""
LEAST_ITEMS = 10
"""A topic of fewer items is no capability: a share of them says little."""
LEAST_CAPABILITIES = 2
NO_TOPIC = "no topic"
MOST_LOST_OF_EACH, MOST_LOST_ITEMS = 5, 40
"""How many lost items are kept with both replies; the ids of all are."""


class HasTopic(Protocol):
    """An item of a general set, whatever it asks for."""

    @property
    def topic(self) -> str:
        """What it is about; empty where its row does not say."""


def capabilities_of(general: Sequence[HasTopic]) -> dict[str, tuple[int, ...]]:
    """The places of the items of each capability, in the order of the set; empty where there are not two of them."""
    counted = Counter(item.topic for item in general if item.topic)
    names = [topic for topic, items in counted.items() if items >= LEAST_ITEMS]
    if len(names) < LEAST_CAPABILITIES:
        return {}
    return {name: tuple(at for at, item in enumerate(general) if item.topic == name) for name in names}


def capability_outcomes(general: Sequence[HasTopic], right: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Whether each item of each capability was right, under its name with `CAPABILITY` before it.

    Args:
        general: the items that were asked.
        right: whether each reply was, in the same order; None where that could not be checked.
    """
    return {CAPABILITY + name: [right[at] for at in places] for name, places in capabilities_of(general).items()}


def item_transitions(
    general: Sequence[GeneralItem],
    before: Sequence[str],
    after: Sequence[str],
    *,
    right_before: Sequence[Outcome],
    right_after: Sequence[Outcome],
) -> ItemTransitions | None:
    """Which items went from right to wrong and from wrong to right; None where one side was not asked.

    Args:
        general: the items.
        before: the replies of the untouched model, in the same order.
        after: those of the trained one.
        right_before: whether each of the first was right; an item that could not be checked on one side is left out.
        right_after: the same of the second.
    """
    rows = list(zip(general, before, after, right_before, right_after, strict=False))
    if not general or not len(rows) == len(general) == len(before) == len(after):
        return None
    lost: dict[str, list[str]] = {}
    gained: dict[str, list[str]] = {}
    kept: list[LostItem] = []
    for item, reply_before, reply_after, was_right, is_right in rows:
        if was_right is None or is_right is None or was_right == is_right:
            continue
        topic = item.topic or NO_TOPIC
        names = (gained if is_right else lost).setdefault(topic, [])
        names.append(item.name)
        if was_right and len(names) <= MOST_LOST_OF_EACH and len(kept) < MOST_LOST_ITEMS:
            kept.append(LostItem(item.name, topic, item.prompt, item.reference, reply_before, reply_after))
    return ItemTransitions(
        {topic: tuple(names) for topic, names in lost.items()},
        {topic: tuple(names) for topic, names in gained.items()},
        tuple(kept),
    )
