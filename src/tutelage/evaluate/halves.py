"""A general set -> two halves with no prompt and no source in common: one to choose by, one for the report."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from tutelage.errors import DataError
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.statistics import smallest_detectable

FEWEST_FOR_KEPT = 73
"""Items of which none moves that are the fewest to show 'kept' (`evaluate.statistics.verdict`; a test counts)."""
ASSUMED_MOVING = 0.2
"""Share of the items that change either way, which the smallest loss that is shown depends on (docs/evaluate.md)."""


@dataclass(frozen=True, slots=True)
class Halves:
    """The items to choose by, and those of the report, which took no part in the choice."""

    choice: tuple[GeneralItem, ...]
    report: tuple[GeneralItem, ...]

    @property
    def topics(self) -> dict[str, tuple[int, int]]:
        """How many items of each topic are in either half."""
        choice, report = (Counter(item.topic for item in half) for half in (self.choice, self.report))
        return {topic: (choice[topic], report[topic]) for topic in sorted(choice | report)}


def halves_of(items: Sequence[GeneralItem], *, seed: int) -> Halves:
    """Split by chance, each topic as evenly as it goes; items with one prompt, or of one source, stay together.

    Args:
        items: of any number of sets.
        seed: the same one gives the same halves.

    Returns:
        Halves in the order of `items`.

    Raises:
        DataError: fewer than two that have no prompt and no source in common.
    """
    groups_of_items = _groups(items)
    by_topic: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups_of_items:
        by_topic[items[group[0]].topic].append(group)
    if len(groups_of_items) < 2:
        raise DataError(
            "The general set cannot be split in two",
            where="evaluate.general",
            found="no two items without a prompt or a source in common",
            expected="one half to choose by, another one for the report",
            fix='give more prompts, or evaluate.general = ["probes"]',
        )
    draw = np.random.default_rng([seed, len(items)])
    halves: tuple[list[int], list[int]] = ([], [])
    for topic in sorted(by_topic):
        groups = by_topic[topic]
        counts = [0, 0]
        for index in draw.permutation(len(groups)):
            half = min((0, 1), key=lambda half: (counts[half], len(halves[half]), half))
            counts[half] += len(groups[index])
            halves[half].extend(groups[index])
    return Halves(*(tuple(items[place] for place in sorted(half)) for half in halves))


def _groups(items: Sequence[GeneralItem]) -> list[list[int]]:
    """The places of items that share a prompt or a source, directly or by others; in the order of their first."""
    group_of: dict[tuple[str, str], list[int]] = {}
    for place, item in enumerate(items):
        met = [group_of.get(key, []) for key in _shared(item)]
        joined = sorted({place, *chain(*met)})
        group_of |= {key: joined for member in joined for key in _shared(items[member])}
    return sorted({group[0]: group for group in group_of.values()}.values())


def _shared(item: GeneralItem) -> list[tuple[str, str]]:
    """What an item may have in common with others."""
    prompt = ("prompt", " ".join(item.prompt.split()).casefold())
    return [prompt, ("source", item.source)] if item.source else [prompt]


def as_lines(items: Sequence[GeneralItem]) -> str:
    """JSON lines that `evaluate.general.read_general` reads back."""
    rows = []
    for item in items:
        checks = [check.model_dump(mode="json") for check in item.checks]
        row: dict[str, Any] = {"id": item.name, "topic": item.topic, "prompt": item.prompt, "checks": checks}
        row |= {"source": item.source} if item.source else {}
        rows.append(row if item.reference is None else row | {"reference": item.reference})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def what_it_shows(items: int, limit: float) -> str:
    """What so many items can say of a limit, in a sentence: before anything is trained.

    Args:
        items: of a half.
        limit: of what may be lost, from 0 to 1.
    """
    smallest = smallest_detectable(items, discordant=ASSUMED_MOVING)
    words = f"{items} items, each {100 / items:.1f} points; "
    if smallest is None:
        words += "no loss of so few items could be shown"
    else:
        words += f"the smallest loss that they show in 80 % of such runs is about {100 * smallest:.1f} points"
    if smallest is None or smallest > limit:
        words += f", so one of {100 * limit:g} points may be there and not be shown"
    if items < FEWEST_FOR_KEPT:
        words += f"; fewer than {FEWEST_FOR_KEPT} cannot show that nothing was lost"
    return words
