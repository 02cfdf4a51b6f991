"""What models make of questions with choices: the scores that `before.json` keeps, and the shares of `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.runs.fields import Fields
from tutelage.runs.uncertainty import ShareUncertainty, read_shares

WAYS = {
    "sum": "sum",
    "per_token": "per token",
    "per_byte": "per byte",
    "answer_only": "against an answer-only prompt",
}
"""How choices are weighed, and what to call that."""
COUNTED = "per_byte"
"""Which of them counts in the share of the general set: bytes are the same for every tokenizer, and a long choice is
not the less likely for its length."""


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Of one question; natural logarithms of probabilities, by choice.

    Attributes:
        sums: of the choice as the reply.
        answer_only: of the same reply behind an answer-only prompt.
        tokens: of the reply.
    """

    sums: tuple[float, ...]
    answer_only: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChoiceMeasure:
    """Shares of questions whose right choice weighs most, by way of weighing (`WAYS`).

    Attributes:
        items: questions.
        chance: share that guesses have right.
        before: share of each way; empty where that model was not measured.
        after: the same.
        same_before: share of the questions of which all ways choose the same reply; None as `before`.
        same_after: the same.
        above_before: each share with 0 for guessing and 1 for all right, below 0 where guesses do better.
        above_after: the same.
        shares: intervals, and changes with Holm's adjustment for the ways among themselves.
        topics: the same of the questions of each topic, without topics of its own; empty where there are not two.
    """

    items: int
    chance: float
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    same_before: float | None = None
    same_after: float | None = None
    shares: Mapping[str, ShareUncertainty] = field(default_factory=dict)
    above_before: Mapping[str, float] = field(default_factory=dict)
    above_after: Mapping[str, float] = field(default_factory=dict)
    topics: Mapping[str, ChoiceMeasure] = field(default_factory=dict)


def scores_in(saved: Any) -> tuple[ChoiceScores, ...]:
    """Those of a decoded `before.json` or `after.json`; empty where it has none.

    Raises:
        TypeError, ValueError, KeyError: they are damaged.
    """
    return tuple(
        ChoiceScores(
            tuple(map(float, scores["sums"])),
            tuple(map(float, scores["answer_only"])),
            tuple(map(int, scores["tokens"])),
        )
        for scores in saved.get("choices", ())
    )


def read_choice_measure(fields: Fields) -> ChoiceMeasure | None:
    """What a file says; None where it says nothing, as older files. What is damaged is left out."""
    items, chance = fields.integer("items"), fields.number("chance")
    if not items or chance is None:
        return None
    before, after, above_before, above_after = (
        {way: share for way, share in fields.inner(side).numbers().items() if way in WAYS and share is not None}
        for side in ("before", "after", "above_before", "above_after")
    )
    by_topic = fields.inner("topics")
    topics = {name: read_choice_measure(by_topic.inner(name)) for name in by_topic.content}
    return ChoiceMeasure(
        items,
        chance,
        before,
        after,
        fields.number("same_before"),
        fields.number("same_after"),
        read_shares(fields.inner("shares")),
        above_before,
        above_after,
        {name: measure for name, measure in topics.items() if measure is not None},
    )


def choice_measure_in(result: Any) -> ChoiceMeasure | None:
    """That of a decoded `result.json`."""
    return read_choice_measure(Fields.of(result, "result.json", []).inner("multiple_choice"))
