"""A general set -> two halves with no prompt in common: one to choose by, one for the report on what was chosen."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Split by chance, each topic as evenly as it goes; items with one prompt stay together.

    Args:
        items: of any number of sets.
        seed: the same one gives the same halves.

    Returns:
        Halves in the order of `items`.

    Raises:
        DataError: fewer than two prompts.
    """
    by_topic: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    topic_of: dict[str, str] = {}
    for place, item in enumerate(items):
        prompt = " ".join(item.prompt.split()).casefold()
        by_topic[topic_of.setdefault(prompt, item.topic)][prompt].append(place)
    if len(topic_of) < 2:
        raise DataError(
            "The general set cannot be split in two",
            where="evaluate.general",
            found=f"{len(topic_of)} prompts",
            expected="one half to choose by, another one for the report",
            fix='give more prompts, or evaluate.general = ["probes"]',
        )
    draw = np.random.default_rng([seed, len(items)])
    halves: tuple[list[int], list[int]] = ([], [])
    for topic in sorted(by_topic):
        groups = list(by_topic[topic].values())
        counts = [0, 0]
        for index in draw.permutation(len(groups)):
            half = min((0, 1), key=lambda half: (counts[half], len(halves[half]), half))
            counts[half] += len(groups[index])
            halves[half].extend(groups[index])
    return Halves(*(tuple(items[place] for place in sorted(half)) for half in halves))


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
